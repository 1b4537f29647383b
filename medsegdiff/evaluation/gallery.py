"""Small multiples of cases: small bitmaps with vector outlines above them."""

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
"""Greatest number of raters, and of members, that are shown of a case."""

MARGIN = 0.35
"""Margin of the crop on each side, as a share of the size of the marked area."""

SMALLEST = 24
LARGEST = 192
"""Least number of pixels along the longer side of a crop, and greatest one of its bitmap."""

FILIGREE = 3000
"""Greatest number of characters of a path; a structure with a longer one is too fine to outline."""

VARIANCE_TOP = (0.25, 0.5)
"""Upper end of the scale of variance: for one class, and for the sum over several."""

_PLANES = ("sagittal", "coronal", "axial")
_ANISOTROPIC = 1.5

Plane = NDArray[Any]
"""Array (rows, columns[, 3]) to show, upper row first."""


@dataclass(frozen=True)
class Layer:
    """A mask above a bitmap: an SVG path in pixels, its colour, and its style of drawing."""

    path: str
    colour: str
    style: str  # "mask", "fill", "reference" or "edge"


@dataclass(frozen=True)
class Panel:
    """One of a case's small pictures: its title, its bitmap, and the masks above it."""

    title: str
    bitmap: str
    layers: tuple[Layer, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A case's small multiples.

    Attributes:
        bitmaps: Name, "image" and if known "mean" and "variance" -> data URI of the bitmap.
        panels: Panels in the order in which they are shown.
        rows, columns: Size of the bitmaps in pixels.
        aspect: Ratio of width to height of the area that they show, in millimetres.
        where: Name of the slice; "" for a plane.
    """

    bitmaps: dict[str, str]
    panels: tuple[Panel, ...]
    rows: int
    columns: int
    aspect: float
    where: str


def small_multiples(shown: CaseView, values: tuple[int, ...]) -> Picture:
    """Image, masks of raters, ensemble and members, mean probability and variance of a case.

    For a volume, the slice with most error and variance is shown. It is axial, unless the slices
    are thick in another direction or the volume is a stack of planes. It is cropped to the area
    that raters and ensemble mark; if they mark nothing, to the area that members mark.

    Args:
        shown: Case to show.
        values: Values of the foreground classes, in the order of their colours.

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
    """A panel of the image with a mask; the title says if the mask is empty in this slice."""
    layers = _layers(labels, values, "mask")
    return Panel(title if layers else f"{title}: nothing", "image", layers + above)


def _layers(labels: Plane, values: tuple[int, ...], style: str) -> tuple[Layer, ...]:
    """One layer per class in the mask; a fine structure, such as a mesh of vessels, is filled."""
    layers = []
    for i, value in enumerate(values):
        path, colour = outline(labels == value), COLOURS[i % len(COLOURS)]
        if len(path) > FILIGREE and style == "mask":
            layers.append(Layer(path, colour, "fill"))
        elif 0 < len(path) <= FILIGREE:
            layers.append(Layer(path, colour, style))
    return tuple(layers)


# --- choice of the slice and of the part to show --------------------------------------------------


def _slice(shown: CaseView) -> tuple[Callable[[Plane], Plane], str, tuple[float, float]]:
    """Function that cuts the slice, its name, and the spacing of its rows and columns in mm."""
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
    """The direction of thick slices, else up-down: 0 right-left, 1 front-back, 2 up-down."""
    thickest = max(mm, key=lambda w: mm[w])
    others = [size for w, size in mm.items() if w != thickest]
    return thickest if mm[thickest] > _ANISOTROPIC * max(others) else 2


def _window(
    masks: list[Plane], otherwise: list[Plane], spacing: tuple[float, float]
) -> tuple[slice, slice]:
    """Part of a plane around the marked area, as close to a square in mm as the plane allows."""
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
    """Member's number -> mask, for a few members from the smallest to the largest volume."""
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
    """Resize by means over boxes, and labels by the nearest; colours are resized per channel."""
    if plane.shape[:2] == size:
        return plane
    if plane.ndim == 3:
        return np.stack([_resize(plane[..., c], size) for c in range(plane.shape[-1])], axis=-1)
    labels = plane.dtype == np.uint8
    picture = Image.fromarray(np.ascontiguousarray(plane if labels else plane.astype(np.float32)))
    how = Image.Resampling.NEAREST if labels else Image.Resampling.BOX
    return np.asarray(picture.resize(size[::-1], how))


def _bytes(plane: Plane) -> NDArray[np.uint8]:
    """Values in [0, 1] of a plane, as bytes."""
    return np.asarray(np.clip(np.nan_to_num(plane) * 255.0, 0, 255).round(), dtype=np.uint8)


def _image_uri(plane: Plane, grey: tuple[float, float]) -> str:
    scaled = _bytes((plane.astype(np.float64) - grey[0]) / (grey[1] - grey[0]))
    return _uri(Image.fromarray(scaled), "JPEG" if scaled.ndim == 3 else "PNG")


def _mean_uri(mean: Mapping[int, Plane], values: tuple[int, ...]) -> str:
    """Data URI of the mean probabilities: each class in its colour, brighter if more probable."""
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
