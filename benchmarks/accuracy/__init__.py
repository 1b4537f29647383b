"""How good masks and their disagreement are, for the time that they take."""
