"""From arrays with geometry to files: NIfTI, NRRD for 3D Slicer, DICOM SEG. No model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
