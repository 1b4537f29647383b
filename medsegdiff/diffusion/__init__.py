"""The theory, in torch alone: how masks are noised, and how samplers walk back."""
