"""Diffusion ensembles for medical image segmentation.

The way from file to mask:
manifest → transforms → segment → sliding_window → sampler ⟲ denoise → ensemble → inverse transforms → writers → report

Whole jobs, with the arguments of the commands: ``check``, ``plan``, ``train``, ``segment``, ``calibrate``,
``evaluate``; ``fit``, which does all of these; and ``load_bundle``. What else others may use is
named by each subpackage.
"""  # noqa: E501

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
