"""Benchmarks: of explanations, and of their speed."""
