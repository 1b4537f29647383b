"""Types, errors, limits of inputs, atomic files, signals, libraries kept quiet, large arrays."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
