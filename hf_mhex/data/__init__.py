"""Rows of data: opened, checked, split, and embedded samples."""
