"""Predictions of other programs' models, brought to the files that this package's cases have."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
