"""Explanations of one input and of whole data sets."""
