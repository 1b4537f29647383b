"""Masks from a few labelled cases, on the features of a diffusion of images."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
