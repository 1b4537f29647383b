"""Diffusion ensembles for medical image segmentation.

The way from file to mask:
manifest → transforms → segment → sliding_window → sampler ⟲ denoise → ensemble → inverse transforms → writers → report
"""  # noqa: E501

__version__ = "0.1.0"
