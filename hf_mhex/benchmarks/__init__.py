"""Benchmarks of explanations: their quality and their cost."""
