"""Masks of the outlines that raters drew, point by point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def fill(
    points: Sequence[tuple[float, float]], shape: tuple[int, int], *, with_outline: bool
) -> NDArray[np.bool_]:
    """Mask of the pixels within a closed outline.

    Args:
        points: Corners (x, y), column and row in pixels; the centre of the first pixel is (0, 0).
        shape: Number of columns and rows of the image.
        with_outline: Whether the pixels on the outline belong to the mask.

    Returns:
        Mask (columns, rows).

    >>> int(fill([(1, 1), (3, 1), (3, 3), (1, 3)], (5, 5), with_outline=False).sum())
    1
    """
    from PIL import Image, ImageDraw  # seldom needed

    canvas = Image.new("L", shape)
    corners = [(float(x), float(y)) for x, y in points]
    if len(corners) > 1:
        ImageDraw.Draw(canvas).polygon(corners, fill=1, outline=int(with_outline))
    elif with_outline and corners:
        canvas.putpixel((round(corners[0][0]), round(corners[0][1])), 1)
    return np.asarray(canvas).astype(bool).T
