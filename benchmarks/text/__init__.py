"""Masks from words, and the small text-to-image model that they need."""
