"""One slice as a picture of its own: grey, outlines of masks in colour, and lines of text below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_erosion

LONGEST = 512
"""Length in pixels up to which a small slice is magnified, by a whole number."""

RGB = tuple[int, int, int]
"""Red, green and blue in [0, 255]."""

_TEXT, _LINE, _MARGIN = 13, 18, 6  # pixels: size of letters, distance of lines, space around
_DASH = 4  # pixels


class Outline(NamedTuple):
    """A mask to draw by its border."""

    inside: NDArray[np.bool_]
    colour: RGB
    dashed: bool = False


class Line(NamedTuple):
    """A line of text."""

    text: str
    colour: RGB = (255, 255, 255)


def magnification(rows: int, columns: int) -> int:
    """The whole number of pixels that a slice's pixel is drawn with along each axis.

    >>> magnification(51, 35), magnification(512, 512)
    (10, 1)
    """
    return max(1, LONGEST // max(rows, columns))


def slice_picture(
    image: NDArray[np.uint8], outlines: Sequence[Outline], lines: Sequence[Line]
) -> NDArray[np.uint8]:
    """A slice with outlines on it, and text below it.

    The slice's pixels keep their values but where an outline lies on them, and begin at the upper
    left corner of the picture.

    Args:
        image: Slice (rows, columns, 3) in red, green and blue.
        outlines: Outlines of masks (rows, columns); later ones lie on earlier ones.
        lines: Lines of text.

    Returns:
        Picture (rows, columns, 3), magnified by :func:`magnification`; where the text needs it,
        wider than the slice.
    """
    times = magnification(*image.shape[:2])
    large = image.repeat(times, 0).repeat(times, 1)
    rows, columns = large.shape[:2]
    dash = np.add(*np.indices((rows, columns))) // _DASH % 2 == 0
    for inside, colour, dashed in outlines:
        fine = inside.repeat(times, 0).repeat(times, 1)
        border = fine & ~binary_erosion(fine, iterations=1 if times == 1 else 2)
        large[border & dash if dashed else border] = colour
    font = ImageFont.load_default(_TEXT)
    width = max(columns, *(_width(line.text, font) + 2 * _MARGIN for line in lines))
    picture = Image.new("RGB", (width, rows + _LINE * len(lines) + 2 * _MARGIN))
    picture.paste(Image.fromarray(large), (0, 0))
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        place = (_MARGIN, rows + _MARGIN + _LINE * number)
        draw.text(place, line.text, fill=line.colour, font=font)
    return np.asarray(picture)


def _width(text: str, font: Any) -> int:
    return int(np.ceil(font.getlength(text)))
