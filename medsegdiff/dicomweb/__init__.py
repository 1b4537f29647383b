"""Images from a DICOMweb server (WADO-RS), and segmentations to one (STOW-RS)."""
