"""Pictures of an image, its mask and its variance.

A figure is made with matplotlib's object interface: no global state, no display, no window.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from medsegdiff.core.atomic_files import written_aside

Array = NDArray[Any]

# Okabe and Ito's colour-blind-safe palette, ordered by contrast on grey images.
COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")
_INK, _FAINT, _CYAN = "#1f2933", "#9aa5b1", "#6ee7f2"
_STYLE: Any = {
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "font.size": 10,
}
_WORLD = ("RL", "AP", "SI")

_PLANES = (("axial", 0, 1), ("coronal", 0, 2), ("sagittal", 1, 2))
_WIDTH, _MAX_PANELS, _MIN_ROW, _GAP = 10.0, 11.0, 0.7, 0.08  # inches
_LEFT, _RIGHT, _BOTTOM = 0.55, 0.8, 0.45  # inches around the panels
_DRAWN = 1024  # largest number of pixels along an axis of a panel, which has some 400 on the page
_SAMPLED = 2**23  # largest number of voxels that the grey range is computed from


@dataclass(frozen=True)
class _Plane:
    """One row of a picture: a cut through the volume, its size and its labels."""

    name: str
    cut: tuple[int | slice, ...]
    size: tuple[float, float]  # millimetres, horizontal and vertical
    letters: str = ""  # of the left, right, lower and upper edge; "" where not known
    photograph: bool = False  # the second axis runs down, the first one to the right

    def of(self, array: Array) -> Array:
        """The array's (rows, columns[, channels]) in this plane, upper row first."""
        plane = np.swapaxes(array[self.cut], 0, 1)
        return plane if self.photograph else plane[::-1, ::-1]

    def drawn(self, array: Array) -> Array:
        """At most ``_DRAWN`` rows and columns of it, which is more than a panel has pixels."""
        plane = self.of(array)
        rows, columns = (math.ceil(n / _DRAWN) for n in plane.shape[:2])
        return plane[::rows, ::columns]


def three_planes(
    image: Array,
    mask: Array,
    variance: Array | None,
    spacing: Sequence[float],
    *,
    reference: Array | None = None,
    title: str = "",
    labels: Mapping[int, str] | None = None,
    axes: str = "",
) -> Figure:
    """Axial, coronal and sagittal plane: the image, its mask, and the variance map.

    Each plane is the slice that shows most of every class. Volumes are drawn in the radiological
    convention: the patient's right on the left, anterior or superior on top. A 2D image gives a
    single row.

    Args:
        image: Image (X, Y[, Z]), any scale; a last axis may hold channels (three: colour).
        mask: Integer label map (X, Y[, Z]), 0 is background.
        variance: Variance (X, Y[, Z]), at least 0, summed over the classes where there are several;
            None: that column is left out.
        spacing: Size of a voxel along each spatial axis, in mm.
        reference: Integer label map (X, Y[, Z]), drawn as a dashed outline.
        title: Text above the picture.
        labels: Names in the legend, by class number.
        axes: Directions in which the array's axes increase, one letter each, such as ``"LPS"``;
            with it the planes' edges are lettered. Without it a volume is taken to be "RAS", a
            2D image to be a photograph (second axis down), and no edge is lettered.

    Returns:
        A figure ten inches wide; 128 dots per inch make it 1280 pixels.

    Raises:
        ValueError: when the arrays' shapes do not agree.
    """
    _check_shapes(image, mask, variance, reference, spacing)
    names = labels or {}
    image, mask = to_ras(image, mask.ndim, axes), to_ras(mask, mask.ndim, axes)
    variance = None if variance is None else to_ras(variance, mask.ndim, axes)
    reference = None if reference is None else to_ras(reference, mask.ndim, axes)
    planes = _planes(mask, reference, variance, spacing, axes)
    with rc_context(_STYLE):
        figure, grid = _grid(planes, 2 if variance is None else 3, title)
        grey = grey_range(image, mask.ndim)
        for row, plane in zip(grid, planes, strict=True):
            for panel in row[:2]:
                panel.imshow(_pixels(plane.drawn(image), grey), extent=_extent(plane), cmap="gray")
            _draw_mask(row[1], plane, mask, filled=True)
            if reference is not None:
                _draw_reference(row[1], plane, reference)
            if variance is not None:
                _draw_variance(row[2], plane, variance)
                _draw_mask(row[2], plane, mask, filled=False)
            _write_edges(row[0], plane)
        if variance is not None:
            if sum(value != 0 for value in names) > 1:
                grid[0][2].set_title("Variance, summed over classes", fontsize=11, pad=5)
            _colour_bar(figure, grid)
        _legend(figure, mask, reference, names)
    return figure


def members_picture(
    image: Array,
    members: Array,
    mean: Array,
    variance: Array,
    spacing: Sequence[float],
    *,
    title: str = "",
    axes: str = "",
    most: int = 6,
) -> Figure:
    """A set of masks side by side: the image, outlines of its members, their mean and variance.

    One plane is shown, of a volume the axial slice that shows most of what any member marks. Of
    many members some are shown, from the smallest to the largest.

    Args:
        image: Image (X, Y[, Z]) of any scale, or with a last axis of channels (three of them:
            colour).
        members: Integer label maps (N, X, Y[, Z]) of the members, 0 is background.
        mean: Mean probability (X, Y[, Z]) in [0, 1] of what is shown, such as of any structure.
        variance: Variance (X, Y[, Z]), at least 0, of that probability over the members.
        spacing: Size of a voxel along each spatial axis, in millimetres.
        title: Line above the picture.
        axes: Directions in which the array's axes increase, as for :func:`three_planes`.
        most: Number of members that are shown.

    Returns:
        A figure ten inches wide.

    Raises:
        ValueError: when the arrays' shapes do not agree.
    """
    _check_shapes(image, members[0], variance, mean, spacing)
    ndim = members[0].ndim
    image, mean, variance = (to_ras(array, ndim, axes) for array in (image, mean, variance))
    masks = [to_ras(member, ndim, axes) for member in members]
    plane = _planes(np.max(masks, axis=0), None, variance, spacing, axes)[0]
    by_size = np.argsort([np.count_nonzero(mask) for mask in masks], kind="stable")
    shown = by_size[np.linspace(0, len(masks) - 1, min(most, len(masks))).round().astype(int)]
    headings = ["Image", *(f"Member {n + 1} of {len(masks)}" for n in shown), "Mean", "Variance"]
    with rc_context(_STYLE):
        figure, panels = _row_of_panels(plane, headings, title)
        for panel in panels[:-2]:
            pixels = _pixels(plane.drawn(image), grey_range(image, ndim))
            panel.imshow(pixels, extent=_extent(plane), cmap="gray")
        for panel, n in zip(panels[1:-2], shown, strict=True):
            _draw_mask(panel, plane, masks[n], filled=True)
        panels[-2].imshow(plane.drawn(mean), extent=_extent(plane), cmap="gray", vmin=0.0, vmax=1.0)
        _draw_variance(panels[-1], plane, variance)
    return figure


def _row_of_panels(plane: _Plane, headings: Sequence[str], title: str) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each heading, five in a row at most."""
    columns = min(5, len(headings))
    rows = math.ceil(len(headings) / columns)
    width = (_WIDTH - (columns - 1) * _GAP) / columns
    tall = width * plane.size[1] / plane.size[0] + 0.3  # with its heading
    top = 0.4 if title else 0.0
    height = top + rows * tall
    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    panels = []
    for n, heading in enumerate(headings):
        left, row = (n % columns) * (width + _GAP), n // columns
        box = (left, height - top - (row + 1) * tall, width, tall - 0.3)
        place = (box[0] / _WIDTH, box[1] / height, box[2] / _WIDTH, box[3] / height)
        panel = figure.add_axes(place, facecolor="black", xticks=[], yticks=[])
        panel.set_title(heading, fontsize=10, pad=4)
        panels.append(panel)
    if title:
        figure.text(0.0, 1 - 0.1 / height, title, fontsize=13, weight="bold", va="top")
    return figure, panels


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure to ``path`` as PNG, 128 dots per inch; the file is complete or absent.

    The figure is cleared: it would keep its images until the next full garbage collection.
    """
    with written_aside(path) as aside:
        aside.write_bytes(_png(figure))
    figure.clear()


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with rc_context(_STYLE):
        figure.savefig(buffer, format="png", dpi=128)
    return buffer.getvalue()


def _check_shapes(
    image: Array,
    mask: Array,
    variance: Array | None,
    reference: Array | None,
    spacing: Sequence[float],
) -> None:
    if mask.ndim not in (2, 3) or len(spacing) != mask.ndim:
        raise ValueError(
            "mask must have two or three axes, and spacing one value for each. "
            f"Got a mask of {mask.shape} and spacing {tuple(spacing)}."
        )
    if image.shape[: mask.ndim] != mask.shape or image.ndim > mask.ndim + 1:
        raise ValueError(f"image must have the mask's shape {mask.shape}. Got {image.shape}.")
    for name, array in (("variance", variance), ("reference", reference)):
        if array is not None and array.shape != mask.shape:
            raise ValueError(f"{name} must have the mask's shape {mask.shape}. Got {array.shape}.")


# --- choice of planes -----------------------------------------------------------------------------


def world_axes(axes: str, ndim: int) -> list[int]:
    """For each axis of an array: 0 for right-left, 1 for anterior-posterior, 2 for up-down.

    Args:
        axes: Directions in which the array's axes increase, as :func:`three_planes` takes them.
        ndim: Number of spatial axes, 2 or 3.

    Raises:
        ValueError: when ``axes`` names a direction twice, or too few.
    """
    codes = (axes or "RAS")[:ndim]
    world = [w for code in codes for w, pair in enumerate(_WORLD) if code in pair]
    if len(set(world)) != ndim:
        raise ValueError(
            f"axes must name {ndim} different directions, such as 'RAS'. Got {axes!r}."
        )
    return world


def to_ras(array: Array, ndim: int, axes: str) -> Array:
    """The same array with its spatial axes in the order and direction right, anterior, superior.

    Args:
        array: Array (X, Y[, Z], ...) of any type; later axes stay where they are.
        ndim: Number of spatial axes, 2 or 3.
        axes: Directions in which they increase; "" means "RAS".

    Raises:
        ValueError: as :func:`world_axes`.
    """
    world = world_axes(axes, ndim)
    turned = tuple(a for a, code in enumerate((axes or "RAS")[:ndim]) if code not in "RAS")
    order = (*np.argsort(world), *range(ndim, array.ndim))
    return np.transpose(np.flip(array, turned), order)


def _planes(
    mask: Array,
    reference: Array | None,
    variance: Array | None,
    spacing: Sequence[float],
    axes: str,
) -> list[_Plane]:
    """The rows of the picture; arrays are in RAS order, spacing and axes in the order given."""
    world = world_axes(axes, mask.ndim)
    shown = sorted(world)
    size = {w: mask.shape[shown.index(w)] * spacing[world.index(w)] for w in world}
    rows = []
    for name, right, up in _PLANES:
        if not {right, up} <= set(world):
            continue
        cut: list[int | slice] = [slice(None)] * mask.ndim
        if mask.ndim == 3:
            through = 3 - right - up
            index, count = _best_slice(through, mask, reference, variance), mask.shape[through]
            cut[through] = index
            turned = (axes or "RAS")[world.index(through)] not in "RAS"
            name = f"{name}\n{count - index if turned else index + 1} of {count}"
        letters = _WORLD[right] + _WORLD[up][::-1] if axes else ""
        rows.append(_Plane(name, tuple(cut), (size[right], size[up]), letters))
    if mask.ndim == 2 and not axes:
        return [_Plane("", rows[0].cut, rows[0].size, photograph=True)]
    return rows


def _best_slice(axis: int, mask: Array, reference: Array | None, variance: Array | None) -> int:
    """The slice that shows most of every class: the largest sum of square roots of areas."""
    others = tuple(a for a in range(mask.ndim) if a != axis)
    for labels in (mask, reference):
        if labels is not None and np.any(labels):
            classes = [c for c in np.unique(labels) if c != 0]
            areas = np.stack([np.count_nonzero(labels == c, axis=others) for c in classes])
            score = np.sqrt(areas / areas.sum(axis=1, keepdims=True)).sum(axis=0)
            equal = np.flatnonzero(score >= score.max() - 1e-9)
            return int(equal[len(equal) // 2])
    if variance is not None and np.any(variance):
        return int(np.argmax(variance.max(axis=others)))
    return mask.shape[axis] // 2


# --- drawing --------------------------------------------------------------------------------------


def _grid(planes: list[_Plane], columns: int, title: str) -> tuple[Figure, list[list[Axes]]]:
    """A figure with one row a plane, in which a millimetre is as long in every panel."""
    inner = _WIDTH - _LEFT - (_RIGHT if columns == 3 else 0.1)
    width = (inner - (columns - 1) * _GAP) / columns
    scale = width / max(p.size[0] for p in planes)
    scale = min(scale, _MAX_PANELS / sum(p.size[1] for p in planes))
    heights = [max(p.size[1] * scale, _MIN_ROW) for p in planes]
    top = 0.65 if title else 0.35
    panels = sum(heights) + (len(planes) - 1) * _GAP
    height = top + panels + _BOTTOM
    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    grid: list[list[Axes]] = []
    upper = height - top
    for plane, tall in zip(planes, heights, strict=True):
        upper -= tall
        row = []
        for column in range(columns):
            left = _LEFT + column * (width + _GAP)
            box = (left / _WIDTH, upper / height, width / _WIDTH, tall / height)
            panel = figure.add_axes(box, facecolor="black", xticks=[], yticks=[])
            panel.spines[:].set_visible(False)
            half = width / scale / 2, tall / scale / 2
            panel.set(xlim=(-half[0], half[0]), ylim=(-half[1], half[1]), aspect="equal")
            panel.set_autoscale_on(False)
            row.append(panel)
        row[0].set_ylabel(plane.name, fontsize=10, linespacing=1.4)
        grid.append(row)
        upper -= _GAP
    for panel, heading in zip(grid[0], ("Image", "Segmentation", "Variance"), strict=False):
        panel.set_title(heading, fontsize=11, pad=5)
    if title:
        figure.text(_LEFT / _WIDTH, 1 - 0.1 / height, title, fontsize=13, weight="bold", va="top")
    return figure, grid


def _extent(plane: _Plane) -> tuple[float, float, float, float]:
    horizontal, vertical = plane.size[0] / 2, plane.size[1] / 2
    return -horizontal, horizontal, -vertical, vertical


def grey_range(image: Array, ndim: int) -> tuple[float, float]:
    """The intensities drawn black and white, robust against a few bright voxels.

    Args:
        image: Image (X, Y[, Z]), any scale; a last axis may hold channels (three: colour).
        ndim: Number of spatial axes, 2 or 3.

    Returns:
        Low and high, in the image's scale; high is above low.
    """
    if image.ndim > ndim and image.shape[-1] == 3:
        return 0.0, 255.0 if float(image.max()) > 1.0 else 1.0
    values = image[..., 0] if image.ndim > ndim else image
    step = math.ceil((values.size / _SAMPLED) ** (1 / ndim))
    values = values[(slice(None, None, step),) * ndim]  # a large image by some of its voxels
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, (0.5, 99.5)) if finite.size else (0.0, 1.0)
    return float(low), float(high) if high > low else float(low) + 1.0


def _pixels(plane: Array, grey: tuple[float, float]) -> Array:
    """RGB values in [0, 1] of a plane of the image."""
    colour = plane if plane.ndim == 3 else plane[..., None]
    colour = colour if colour.shape[-1] == 3 else np.repeat(colour[..., :1], 3, axis=-1)
    scaled = (np.nan_to_num(colour.astype(np.float64)) - grey[0]) / (grey[1] - grey[0])
    return np.asarray(np.clip(scaled, 0.0, 1.0))


def _colour(label: int) -> str:
    return COLOURS[(label - 1) % len(COLOURS)]


def _outline(panel: Axes, plane: _Plane, inside: Array, width: float, **style: Any) -> None:
    """Draw the border of a mask, also where the mask touches the border of the picture."""
    shown = plane.of(inside)[::-1]
    if not shown.any():
        return
    # Large voxels are divided, so that the line runs along their edges, not from corner to corner.
    fine = max(1, 400 // max(shown.shape))
    rows, columns = (n * fine for n in shown.shape)
    x = (np.arange(-1, columns + 1) - (columns - 1) / 2) * plane.size[0] / columns
    y = (np.arange(-1, rows + 1) - (rows - 1) / 2) * plane.size[1] / rows
    padded = np.pad(shown.repeat(fine, 0).repeat(fine, 1).astype(np.float64), 1)
    # Where voxels are small, so is what there is to see: thick lines would hide it.
    width *= min(1.0, max(0.4, 250 / max(shown.shape)))
    lines = panel.contour(x, y, padded, levels=[0.5], linewidths=[width], **style)
    lines.set_clip_on(False)


def _draw_mask(panel: Axes, plane: _Plane, mask: Array, *, filled: bool) -> None:
    for label in (int(c) for c in np.unique(mask) if c != 0):
        inside = mask == label
        if filled:
            red, green, blue = (int(_colour(label)[i : i + 2], 16) / 255 for i in (1, 3, 5))
            tint = np.array([red, green, blue, 0.4]) * plane.drawn(inside)[..., None]
            panel.imshow(tint, extent=_extent(plane), interpolation="nearest")
        colour = _colour(label) if filled else _CYAN
        _outline(panel, plane, inside, 1.4 if filled else 0.9, colors=[colour])


def _draw_reference(panel: Axes, plane: _Plane, reference: Array) -> None:
    for label in (int(c) for c in np.unique(reference) if c != 0):
        inside = reference == label
        _outline(panel, plane, inside, 2.2, colors=["black"], alpha=0.55)
        _outline(panel, plane, inside, 1.2, colors=["white"], linestyles=["dashed"])


def _draw_variance(panel: Axes, plane: _Plane, variance: Array) -> None:
    highest = max(float(np.nanmax(variance)), 1e-6)
    shown = np.nan_to_num(plane.drawn(variance).astype(np.float64))
    panel.imshow(shown, extent=_extent(plane), cmap="magma", vmin=0.0, vmax=highest)


def _colour_bar(figure: Figure, grid: list[list[Axes]]) -> None:
    """One bar beside the lowest to the highest variance panel: they share a scale."""
    top, bottom = grid[0][-1].get_position(), grid[-1][-1].get_position()
    tall = min(top.y1 - bottom.y0, 3.2 / figure.get_figheight())
    middle = (top.y1 + bottom.y0) / 2
    box = ((_WIDTH - _RIGHT + 0.1) / _WIDTH, middle - tall / 2, 0.12 / _WIDTH, tall)
    bar = figure.colorbar(grid[0][-1].images[0], cax=figure.add_axes(box))
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=2, color=_FAINT)
    bar.ax.locator_params(nbins=5)


def _write_edges(panel: Axes, plane: _Plane) -> None:
    places = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.02), (0.5, 0.98))
    sides = (("left", "center"), ("right", "center"), ("center", "bottom"), ("center", "top"))
    for letter, (x, y), (ha, va) in zip(plane.letters, places, sides, strict=False):
        panel.text(
            x, y, letter, transform=panel.transAxes, ha=ha, va=va, color="white", fontsize=9,
            path_effects=[withStroke(linewidth=2, foreground="black")],
        )  # fmt: skip


def _legend(figure: Figure, mask: Array, reference: Array | None, names: Mapping[int, str]) -> None:
    classes = {int(c) for c in np.unique(mask)} | {label for label in names}
    if reference is not None:
        classes |= {int(c) for c in np.unique(reference)}
    handles: list[Any] = [
        Patch(facecolor=_colour(c), label=names.get(c, f"class {c}")) for c in sorted(classes - {0})
    ]
    if reference is not None:
        handles.append(Line2D([], [], color=_INK, lw=1.4, ls="--", label="reference (outline)"))
    if handles:
        figure.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(_LEFT / _WIDTH, 0.0), ncols=6,
            frameon=False, fontsize=10, borderaxespad=0.4, borderpad=0.2, handlelength=1.6,
        )  # fmt: skip
