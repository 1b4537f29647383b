"""The theory, in torch alone: how masks are noised, and how samplers walk back."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
