"""Level 1: from files to tensors, and from tensors back to the input's own grid."""
