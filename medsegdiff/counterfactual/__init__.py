"""Healthy counterfactuals of images, and maps of where the image differs from them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
