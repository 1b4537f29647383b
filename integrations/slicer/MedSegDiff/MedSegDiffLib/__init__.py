"""The parts of the module: the command, what it leaves, and the nodes of the scene."""
