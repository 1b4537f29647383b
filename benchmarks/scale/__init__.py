"""Time and memory: of the parts of an ensemble, and of growing volumes."""
