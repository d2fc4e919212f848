"""Explanations of one input, of a batch of rows and of whole data sets."""
