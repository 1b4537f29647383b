"""A whole scan -> the places of its structures, each a box that is segmented by itself."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
