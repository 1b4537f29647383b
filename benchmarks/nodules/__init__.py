"""Clicked lung nodules: the scale of the training crops, and the sizes that are found."""
