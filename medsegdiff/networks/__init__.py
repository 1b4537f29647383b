"""An encoder that runs once per image and a denoiser that runs per step and member.

They know the time step ``t``, never the schedule behind it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
