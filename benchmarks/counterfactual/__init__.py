"""Lesions found by the difference to a healthy image."""
