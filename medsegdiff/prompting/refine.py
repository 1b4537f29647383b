"""Maps that follow the image's edges."""

from __future__ import annotations

from torch import Tensor

from medsegdiff.prompting.pipeline import INSTALL
from medsegdiff.types import UsageError


def guided(maps: Tensor, image: Tensor, radius: int, eps: float = 1e-3) -> Tensor:
    """Guided filtering (He et al., "Guided Image Filtering", PAMI 2013), by kornia.

    Args:
        maps: (B, K, H, W).
        image: (1, 1 or 3, H, W) in [-1, 1], whose edges are followed.
        radius: of the window in pixels; 0: nothing is done.
        eps: contrast, squared, from which on an edge counts.

    Raises:
        UsageError: the extra ``text`` is not installed.
    """
    if radius < 1:
        return maps
    try:
        from kornia.filters import guided_blur
    except ImportError as error:
        raise UsageError("refinement", "needs kornia, which is not installed", INSTALL) from error
    grey = image.mean(dim=1, keepdim=True).expand(len(maps), -1, -1, -1).to(maps)
    filtered: Tensor = guided_blur(grey, maps, 2 * radius + 1, eps)
    return filtered
