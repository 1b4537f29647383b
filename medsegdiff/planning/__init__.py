"""A bundle planned for a data set: its fingerprint, decisions with their reasons, files."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
