"""Segmentation of a user's files, case by case: input, output files and run records."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
