"""Cases as small multiples: bitmaps of a few pixels, and outlines as vectors above them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from medsegdiff.evaluation.shown import Shown
from medsegdiff.pictures import COLOURS, grey_range, to_ras, world_axes

RATERS = 4
MEMBERS = 4
"""How many raters and members of a case are shown."""

MARGIN = 0.35
"""Of the crop around all that is marked: share of its size, on each side."""

SMALLEST = 24
LARGEST = 192
"""Pixels along the longer side of a crop, and of the bitmap of it."""

VARIANCE_TOP = (0.25, 0.5)
"""End of the scale of variance: of one class, and summed over several."""

_PLANES = ("sagittal", "coronal", "axial")
_ANISOTROPIC = 1.5

Plane = NDArray[Any]
"""(rows, columns[, 3]) of what is shown, upper row first."""


@dataclass(frozen=True)
class Layer:
    """A mask above a bitmap: an SVG path in pixels, and whether it is filled or dashed."""

    path: str
    colour: str
    style: str  # "mask", "reference" or "edge"


@dataclass(frozen=True)
class Panel:
    """One of a case's small pictures: its title, the bitmap it lies on, and the masks above."""

    title: str
    bitmap: str
    layers: tuple[Layer, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A case's small multiples.

    Attributes:
        bitmaps: "image", and where known "mean" and "variance" -> address of the data.
        panels: in the order in which they are shown.
        rows, columns: of the bitmaps, in pixels.
        aspect: width over height of what they show, in millimetres.
        where: which slice it is; "" of a plane.
    """

    bitmaps: dict[str, str]
    panels: tuple[Panel, ...]
    rows: int
    columns: int
    aspect: float
    where: str


def small_multiples(shown: Shown, values: tuple[int, ...]) -> Picture:
    """Image, masks of raters, ensemble and members, mean probability and variance of a case.

    Of a volume the slice is shown that has most error and variance: an axial one, unless slices
    are thick in another direction or the volume is a stack of planes. It is cropped to what is
    marked by anybody.

    Args:
        shown: the case.
        values: of the foreground classes, in the order of their colours.

    Returns:
        The panels; bitmaps have at most :data:`LARGEST` pixels along a side.
    """
    cut, where, spacing = _slice(shown)
    planes = {"image": cut(shown.image), "seg": cut(shown.seg), "reference": cut(shown.reference)}
    raters = [cut(reading) for reading in shown.readings[:RATERS]]
    chosen = _chosen_members(shown)
    members = [cut(shown.members[i]) for i in chosen] if shown.members is not None else []
    marked = np.any([planes["seg"], planes["reference"], *raters, *members], axis=0)
    window = _window(marked, spacing)
    size = _reduced(marked[window].shape)

    def reduced(plane: Plane) -> Plane:
        return _resize(plane[window], size)

    bitmaps = {"image": _image_uri(reduced(planes["image"]), grey_range(*_scale(shown)))}
    if shown.mean:
        bitmaps["mean"] = _mean_uri({v: reduced(cut(shown.mean[v])) for v in shown.mean}, values)
    if shown.variance is not None:
        top = VARIANCE_TOP[len(values) > 1]
        bitmaps["variance"] = _variance_uri(reduced(cut(shown.variance)) / top)

    def layers(labels: Plane, style: str) -> tuple[Layer, ...]:
        small = reduced(labels)
        paths = [(outline(small == v), COLOURS[i % len(COLOURS)]) for i, v in enumerate(values)]
        return tuple(Layer(path, colour, style) for path, colour in paths if path)

    reference = layers(planes["reference"], "reference")
    several = len(shown.readings) > 1
    panels = [Panel("Image", "image")]
    for i, rater in enumerate(raters):
        panels.append(
            Panel(f"Rater {i + 1}" if several else "Reference", "image", layers(rater, "mask"))
        )
    panels.append(Panel("Ensemble", "image", layers(planes["seg"], "mask") + reference))
    for i, member in zip(chosen, members, strict=True):
        panels.append(Panel(f"Member {i + 1}", "image", layers(member, "mask")))
    if "mean" in bitmaps:
        panels.append(Panel("Mean", "mean", reference))
    if "variance" in bitmaps:
        panels.append(Panel("Variance", "variance", layers(planes["seg"], "edge")))
    rows, columns = marked[window].shape
    aspect = columns * spacing[1] / (rows * spacing[0])
    return Picture(bitmaps, tuple(panels), *size, aspect, where)


def outline(inside: NDArray[np.bool_]) -> str:
    """SVG path of closed loops along the edges of a mask's pixels.

    Args:
        inside: (rows, columns); a pixel's upper left corner is (column, row).

    Returns:
        "" for an empty mask. The rule "evenodd" fills the mask and leaves its holes.

    >>> outline(np.array([[True, True], [False, False]]))
    'M0 0h2v1h-2z'
    """
    edges = _directed_edges(inside)
    loops = []
    while edges:
        start = point = next(iter(edges))
        runs: list[list[int]] = []
        while point != start or not runs:
            following = edges[point].pop()
            if not edges[point]:
                del edges[point]
            across, down = following[0] - point[0], following[1] - point[1]
            if runs and (runs[-1][0] != 0) == (across != 0):
                runs[-1][0] += across
                runs[-1][1] += down
            else:
                runs.append([across, down])
            point = following
        steps = "".join(f"h{across}" if across else f"v{down}" for across, down in runs[:-1])
        last = runs[-1]
        closing = f"h{last[0]}" if last[0] else ""  # "z" draws the last step down or up
        loops.append(f"M{start[0]} {start[1]}{steps}{closing}z")
    return "".join(loops)


def _directed_edges(inside: NDArray[np.bool_]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Start -> ends of the pixels' edges at the border, clockwise around the mask."""
    padded = np.pad(inside, 1)
    sides = (  # what lies beyond, and the edge's start and end as (column, row)
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    )
    edges: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for beyond, start, end in sides:
        for row, column in np.argwhere(inside & ~beyond).tolist():
            first = (column + start[0], row + start[1])
            edges.setdefault(first, []).append((column + end[0], row + end[1]))
    return edges


# --- which slice, which part of it ----------------------------------------------------------------


def _slice(shown: Shown) -> tuple[Callable[[Plane], Plane], str, tuple[float, float]]:
    """How to cut an array, what the cut is called, and millimetres of a row and of a column."""
    ndim, spacing = len(shown.geometry.shape), shown.geometry.spacing
    if not shown.axes:
        return (lambda array: np.swapaxes(array, 0, 1)), "", (spacing[1], spacing[0])
    world = world_axes(shown.axes, ndim)
    mm = {w: spacing[a] for a, w in enumerate(world)}
    index: int | None = None
    where, through = "", -1
    if ndim == 3:
        through = world[2] if shown.stack else _through(mm)
        axis = world.index(through)
        others = tuple(a for a in range(3) if a != axis)
        own = int(shown.doubtful.sum(axis=others, dtype=np.float64).argmax())
        count = shown.geometry.shape[axis]
        index = own if shown.axes[axis] in "RAS" else count - 1 - own
        where = f"{_PLANES[through]} slice {own + 1} of {count}"
    right, up = (w for w in sorted(world) if w != through)

    def cut(array: Plane) -> Plane:
        turned = to_ras(array, ndim, shown.axes)
        plane = turned if index is None else np.take(turned, index, axis=through)
        return np.swapaxes(plane, 0, 1)[::-1, ::-1]

    return cut, where, (mm[up], mm[right])


def _through(mm: Mapping[int, float]) -> int:
    """The direction of thick slices, else up: 0 for right-left, 1 for front-back, 2 for up-down."""
    thickest = max(mm, key=lambda w: mm[w])
    others = [size for w, size in mm.items() if w != thickest]
    return thickest if mm[thickest] > _ANISOTROPIC * max(others) else 2


def _window(marked: Plane, spacing: tuple[float, float]) -> tuple[slice, slice]:
    """Part of a plane around what is marked, as square, in millimetres, as the plane allows."""
    found = np.argwhere(marked)
    if not len(found):
        return slice(None), slice(None)
    low, high = found.min(axis=0), found.max(axis=0) + 1
    side = max((high - low) * spacing) * (1 + 2 * MARGIN)
    side = max(side, SMALLEST * min(spacing))
    slices = []
    for n, middle, mm in zip(marked.shape, (low + high) / 2, spacing, strict=True):
        wanted = min(round(side / mm), n)
        start = min(max(round(middle - wanted / 2), 0), n - wanted)
        slices.append(slice(start, start + wanted))
    return slices[0], slices[1]


def _chosen_members(shown: Shown) -> list[int]:
    """A few members, from the smallest to the largest marked volume."""
    if shown.members is None:
        return []
    volumes = np.count_nonzero(shown.members.reshape(len(shown.members), -1), axis=1)
    order = np.argsort(volumes, kind="stable")
    ranks = np.linspace(0, len(order) - 1, min(MEMBERS, len(order))).round().astype(int)
    return [int(order[rank]) for rank in ranks]


# --- bitmaps --------------------------------------------------------------------------------------


def _reduced(shape: tuple[int, ...]) -> tuple[int, int]:
    factor = max(1.0, max(shape) / LARGEST)
    return max(1, round(shape[0] / factor)), max(1, round(shape[1] / factor))


def _resize(plane: Plane, size: tuple[int, int]) -> Plane:
    """Means over boxes, of labels the nearest one; colours channel by channel."""
    if plane.shape[:2] == size:
        return plane
    if plane.ndim == 3:
        return np.stack([_resize(plane[..., c], size) for c in range(plane.shape[-1])], axis=-1)
    labels = plane.dtype == np.uint8
    picture = Image.fromarray(np.ascontiguousarray(plane if labels else plane.astype(np.float32)))
    how = Image.Resampling.NEAREST if labels else Image.Resampling.BOX
    return np.asarray(picture.resize(size[::-1], how))


def _scale(shown: Shown) -> tuple[NDArray[Any], int]:
    return shown.image, len(shown.geometry.shape)


def _bytes(plane: Plane) -> NDArray[np.uint8]:
    """A plane of values in [0, 1] as bytes."""
    return np.asarray(np.clip(np.nan_to_num(plane) * 255.0, 0, 255).round(), dtype=np.uint8)


def _image_uri(plane: Plane, grey: tuple[float, float]) -> str:
    scaled = _bytes((plane.astype(np.float64) - grey[0]) / (grey[1] - grey[0]))
    return _uri(Image.fromarray(scaled), "JPEG" if scaled.ndim == 3 else "PNG")


def _mean_uri(mean: Mapping[int, Plane], values: tuple[int, ...]) -> str:
    """Each class in its colour, as bright as it is probable."""
    mixed = np.zeros((*next(iter(mean.values())).shape, 3))
    for i, value in enumerate(values):
        code = COLOURS[i % len(COLOURS)]
        colour = np.array([int(code[j : j + 2], 16) / 255 for j in (1, 3, 5)])
        if value in mean:
            mixed += mean[value][..., None] * colour
    return _uri(Image.fromarray(_bytes(mixed)))


def _variance_uri(plane: Plane) -> str:
    picture = Image.fromarray(_bytes(plane)).convert("P")
    colours = (colormaps["magma"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    picture.putpalette(colours.tobytes())
    return _uri(picture)


def _uri(picture: Image.Image, form: str = "PNG") -> str:
    buffer = io.BytesIO()
    picture.save(buffer, form, optimize=True)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{form.lower()};base64,{text}"
