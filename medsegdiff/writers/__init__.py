"""Arrays with geometry -> files: NIfTI, NRRD for 3D Slicer, DICOM SEG. No model is known here."""
