"""The methods that are compared: ours, U-Nets, and other stochastic ones."""
