"""Repositories on the Hub: contents, cards, publishing, Spaces and their app."""
