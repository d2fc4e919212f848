"""The card template and the rendered cards of the reference models."""
