"""Training glue for MONAI's engines: what their configurations cannot say by themselves."""
