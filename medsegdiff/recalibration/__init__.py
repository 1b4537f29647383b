"""Level 1: from an ensemble's probabilities to calibrated ones, and to statements that hold."""
