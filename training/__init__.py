"""Recipes: how the models are trained."""
