"""Level 0: types, errors, atomic files, silence about patients, storage."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
