"""MONAI bundles as this package uses them: find, describe, parse with checks, load."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
