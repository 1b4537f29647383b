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

from medsegdiff.evaluation.case_view import CaseView
from medsegdiff.viz.outlines import outline
from medsegdiff.viz.pictures import COLOURS, grey_range, to_ras, world_axes

RATERS = 4
MEMBERS = 4
"""How many raters and members of a case are shown."""

MARGIN = 0.35
"""Of the crop around all that is marked: share of its size, on each side."""

SMALLEST = 24
LARGEST = 192
"""Pixels along the longer side of a crop, and of the bitmap of it."""

FILIGREE = 3000
"""Characters of a path beyond which a structure is too fine to be outlined."""

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
    style: str  # "mask", "fill", "reference" or "edge"


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


def small_multiples(shown: CaseView, values: tuple[int, ...]) -> Picture:
    """Image, masks of raters, ensemble and members, mean probability and variance of a case.

    Of a volume the slice is shown that has most error and variance: an axial one, unless slices
    are thick in another direction or the volume is a stack of planes. It is cropped to what
    raters and ensemble mark, or where they mark nothing to what members do.

    Args:
        shown: the case.
        values: of the foreground classes, in the order of their colours.

    Returns:
        The panels; bitmaps have at most :data:`LARGEST` pixels along a side.
    """
    cut, where, spacing = _slice(shown)
    several = len(shown.annotations) > 1
    raters = {
        f"Rater {i + 1}" if several else "Reference": cut(annotation)
        for i, annotation in enumerate(shown.annotations[:RATERS])
    }
    members = {f"Member {i + 1}": cut(member) for i, member in _chosen_members(shown).items()}
    seg = cut(shown.seg)
    window = _window([seg, *raters.values()], list(members.values()), spacing)
    rows, columns = seg[window].shape
    size = _reduced((rows, columns))

    def shrink(plane: Plane) -> Plane:
        return _resize(plane[window], size)

    bitmaps = _bitmaps(shown, lambda array: shrink(cut(array)), values)
    outer = _layers(shrink(cut(shown.reference)), values, "reference")
    inner = _layers(shrink(seg), values, "edge")
    panels = [
        Panel("Image", "image"),
        *(_masked(title, shrink(plane), values) for title, plane in raters.items()),
        _masked("Ensemble", shrink(seg), values, outer),
        *(_masked(title, shrink(plane), values) for title, plane in members.items()),
        Panel("Mean", "mean", outer),
        Panel("Variance", "variance", inner),
    ]
    shown_panels = tuple(panel for panel in panels if panel.bitmap in bitmaps)
    aspect = columns * spacing[1] / (rows * spacing[0])
    return Picture(bitmaps, shown_panels, *size, aspect, where)


def _masked(
    title: str, labels: Plane, values: tuple[int, ...], above: tuple[Layer, ...] = ()
) -> Panel:
    """The image with a mask; the title says if the mask is empty here."""
    layers = _layers(labels, values, "mask")
    return Panel(title if layers else f"{title}: nothing", "image", layers + above)


def _layers(labels: Plane, values: tuple[int, ...], style: str) -> tuple[Layer, ...]:
    """The classes that are there. Lines around a mesh of vessels would hide it: it is filled."""
    layers = []
    for i, value in enumerate(values):
        path, colour = outline(labels == value), COLOURS[i % len(COLOURS)]
        if len(path) > FILIGREE and style == "mask":
            layers.append(Layer(path, colour, "fill"))
        elif 0 < len(path) <= FILIGREE:
            layers.append(Layer(path, colour, style))
    return tuple(layers)


# --- which slice, which part of it ----------------------------------------------------------------


def _slice(shown: CaseView) -> tuple[Callable[[Plane], Plane], str, tuple[float, float]]:
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


def _window(
    masks: list[Plane], otherwise: list[Plane], spacing: tuple[float, float]
) -> tuple[slice, slice]:
    """Part of a plane around what is marked, as square, in millimetres, as the plane allows."""
    found = np.argwhere(np.any(masks, axis=0))
    if not len(found) and otherwise:
        found = np.argwhere(np.any(otherwise, axis=0))
    if not len(found):
        return slice(None), slice(None)
    low, high = found.min(axis=0), found.max(axis=0) + 1
    side = max((high - low) * spacing) * (1 + 2 * MARGIN)
    side = max(side, SMALLEST * min(spacing))
    slices = []
    for n, middle, mm in zip(masks[0].shape, (low + high) / 2, spacing, strict=True):
        wanted = min(round(side / mm), n)
        start = min(max(round(middle - wanted / 2), 0), n - wanted)
        slices.append(slice(start, start + wanted))
    return slices[0], slices[1]


def _chosen_members(shown: CaseView) -> dict[int, NDArray[np.uint8]]:
    """Number -> mask of a few members, from the smallest to the largest marked volume."""
    if shown.members is None:
        return {}
    volumes = np.count_nonzero(shown.members.reshape(len(shown.members), -1), axis=1)
    order = np.argsort(volumes, kind="stable")
    ranks = np.linspace(0, len(order) - 1, min(MEMBERS, len(order))).round().astype(int)
    return {int(order[rank]): shown.members[order[rank]] for rank in ranks}


# --- bitmaps --------------------------------------------------------------------------------------


def _bitmaps(
    shown: CaseView, plane_of: Callable[[NDArray[Any]], Plane], values: tuple[int, ...]
) -> dict[str, str]:
    grey = grey_range(shown.image, len(shown.geometry.shape))
    bitmaps = {"image": _image_uri(plane_of(shown.image), grey)}
    if shown.mean:
        mean = {value: plane_of(array) for value, array in shown.mean.items()}
        bitmaps["mean"] = _mean_uri(mean, values)
    if shown.variance is not None:
        top = VARIANCE_TOP[len(values) > 1]
        bitmaps["variance"] = _variance_uri(plane_of(shown.variance) / top)
    return bitmaps


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
