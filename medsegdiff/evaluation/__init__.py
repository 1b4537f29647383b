"""Evaluation of a folder of segmented cases against references: figures and a report."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
