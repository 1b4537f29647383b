"""Models of other programs: what a calibration does for the predictions of nnU-Net."""
