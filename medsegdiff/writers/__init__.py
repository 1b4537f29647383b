"""Writers of arrays with geometry: NIfTI, NRRD for 3D Slicer, DICOM SEG, maps and captures."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
