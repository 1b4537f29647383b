"""Images from a DICOMweb server (WADO-RS), and segmentations to one (STOW-RS)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
