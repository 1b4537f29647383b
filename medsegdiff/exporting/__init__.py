"""A bundle's networks as files for other programs, by torch.export or ONNX, compared before use."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
