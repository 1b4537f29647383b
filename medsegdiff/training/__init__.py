"""Glue for MONAI's engines: what their configurations cannot say by themselves."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
