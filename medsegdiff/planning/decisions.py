"""From a fingerprint to a plan: each decision with its reason.

The published rules of nnU-Net (Isensee et al., Nature Methods 2021, supplement) are the starting
point; where a plan differs, the reason says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, prod
from typing import Any, Literal

from medsegdiff.data.around_structures import MARGIN
from medsegdiff.planning.fingerprint import Fingerprint
from medsegdiff.planning.levels import multiples, topology

THICK = 3.0
"""Anisotropy from which slices are thick (nnU-Net's threshold)."""

FEW_SLICES = 24
"""Median number of thick slices up to which a volume is segmented slice by slice."""

HARDLY_ANY_SLICES = 12
"""Median number of slices, thick or not, up to which it is."""

VOXELS = {2: 192**2, 3: 100_000}
"""Voxels of a patch, for networks of two and three dimensions, that a processor trains in time."""

LEVELS = {2: 5, 3: 4}
"""Greatest number of levels of the encoder."""

WIDTHS = (16, 32, 64, 128, 192)
"""Widths of the encoder's levels: multiples of 16, which fill a processor's vectors."""

DENOISER_WIDTHS = (16, 32, 64, 128)
"""Widths of the denoiser's levels; it has as many as the encoder from the masks' grid on, so that
its transformer sees few tokens, however large the image."""

THIN = 8.0
"""Thickness in voxels that structures keep where photographs are made smaller."""

AIR = -200.0
"""Hounsfield units below which a CT image has air or lung: else its scale is another."""

SMALL = 0.5
"""Share of a volume that the box of its structures has with its margins, below which a coarse
network looks for the box first."""

LEAST_BOX = 16
"""Least number of voxels of the box along an axis of a volume that has as many."""

COARSE_VOXELS = (48, 96)
"""Least and greatest number of coarse voxels along the longest axis of a volume."""

COARSE_STRUCTURE = 6.0
"""Coarse voxels that structures span along their shortest axis, if the limits allow."""

COARSE_WIDTHS = (16, 32, 64, 64)
"""Widths of the coarse network's levels."""

Normalisation = Literal["z-score", "ct"]
Layout = Literal["channels_last", "contiguous"]
"""Order of features in memory."""


@dataclass(frozen=True)
class CoarsePlan:
    """Decisions on the network that finds the box of the structures.

    Attributes:
        box: Size in voxels of the box with its margins, along R, A and S; 95 % of cases have less.
        spacing: Spacing in mm that the network sees.
        shape: Size in voxels of the median volume that it sees.
        strides: Stride into each level, by axis.
        kernels: Size of the convolutions of each level, by axis.
        channels: Width of each level.
        steps: Number of training steps, of one volume each.
        seconds: Seconds of a training step.
    """

    box: tuple[int, ...]
    spacing: tuple[float, ...]
    shape: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]
    channels: tuple[int, ...]
    steps: int = 200
    seconds: float = 0.0


@dataclass(frozen=True)
class Plan:
    """All decisions of a plan. Sizes are in voxels of the network's space.

    Attributes:
        dims: Number of spatial axes of the network, 2 or 3.
        slices: Whether volumes are segmented slice by slice.
        axcodes: Orientation of volumes, coarse axis last; empty for pictures.
        spacing: Spacing along each axis of the file's dimensions, in mm, or pixels of a photograph;
            -1 keeps that of each image; empty: nothing is resampled.
        normalisation: Normalisation of intensities: ``z-score`` of each image, or ``ct``.
        patch: Size of the patches of training.
        window: Greatest size that the network sees at once when it segments.
        strides: Stride into each level of the encoder, by axis.
        kernels: Size of the convolutions of each level, by axis.
        channels: Width of each level of the encoder.
        stride: Ratio of the image's size to that of the masks that are denoised, by axis.
        denoiser_channels: Width of each level of the denoiser.
        batch: Number of patches in a training step.
        foreground: Share of patches around a structure; 0: patches are drawn evenly.
        rotation: Greatest rotation of the augmentation, in radians, about each axis of rotation.
        mirror: Axes along which training patches are mirrored.
        test_mirror: Axes along which images are mirrored when they are segmented.
        several_raters: Whether the members learn from all raters of an image at once.
        anchor_time: Share of the training time of the encoder alone.
        layout: Order of features in memory in training: ``channels_last`` or ``contiguous``.
        seconds: Seconds of a training step of the encoder, and of the denoiser, patches included.
        memory_gib: Peak memory of a training step, in GiB.
        anchor_steps: Number of training steps of the encoder alone.
        epochs: Number of epochs.
        steps_per_epoch: Number of training steps of an epoch.
        val_interval: Number of epochs from one validation to the next.
        coarse: Coarse network that finds the box of the structures in a volume; None: the volume is
            segmented as a whole.
        reasons: Decision -> its reason, in a sentence.
    """

    dims: int
    slices: bool
    axcodes: str
    spacing: tuple[float, ...]
    normalisation: Normalisation
    patch: tuple[int, ...]
    window: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]
    channels: tuple[int, ...]
    stride: tuple[int, ...]
    denoiser_channels: tuple[int, ...]
    batch: int
    foreground: float
    rotation: tuple[float, ...]
    mirror: tuple[int, ...]
    test_mirror: tuple[int, ...]
    several_raters: bool
    anchor_time: float
    layout: Layout = "channels_last"
    seconds: tuple[float, float] = (0.0, 0.0)
    memory_gib: float = 0.0
    anchor_steps: int = 0
    epochs: int = 1
    steps_per_epoch: int = 1
    val_interval: int = 1
    coarse: CoarsePlan | None = None
    reasons: dict[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """The plan as dictionaries and lists."""
        return asdict(self)

    def smaller(self) -> Plan:
        """The plan that needs less memory: half the batch, or a patch of half the size."""
        if self.batch > 1:
            return replace(self, batch=self.batch // 2)
        multiple = multiples(self.strides)
        sides = [max(m, p // 2 // m * m) for p, m in zip(self.patch, multiple, strict=True)]
        return replace(self, patch=tuple(sides), window=tuple(sides))

    def narrower(self) -> Plan:
        """The plan with half the features at each level of the encoder but the deepest."""
        return replace(self, channels=(self.channels[0] // 2, *self.channels[:-1]))


def decide(of: Fingerprint) -> Plan:
    """The plan for a data set, before its training is timed.

    Args:
        of: Fingerprint of the data set.
    """
    why: dict[str, str] = {}
    dims, slices, axcodes = _dimensions(of, why)
    coarse = _coarse(of, why)
    if coarse:
        of = _within_box(of, coarse)
    spacing = _spacing(of, axcodes, slices, why)
    shape = _resampled(of, of.shape, spacing, axcodes)
    largest = _resampled(of, of.largest, spacing, axcodes)
    grid = _network_spacing(of, spacing, dims, axcodes)
    patch = _patch(shape[:dims], grid, why)
    strides, kernels = topology(patch, grid, LEVELS[dims], why)
    state_stride = _state_stride(strides, why)
    multiple = multiples(strides)
    patch = tuple(-(-side // m) * m for side, m in zip(patch, multiple, strict=True))
    window = _window(shape[:dims], largest[:dims], patch, multiple, dims, why)
    several = of.raters > 1
    ordered = [of.ordered[a] for a in _axes(axcodes)] if axcodes else of.ordered
    mirror = _mirror(of, ordered[:dims], axcodes, why)
    plan = Plan(
        dims=dims,
        slices=slices,
        axcodes=axcodes,
        spacing=spacing,
        normalisation=_normalisation(of, why),
        patch=patch,
        window=window,
        strides=strides,
        kernels=kernels,
        channels=WIDTHS[: len(strides)],
        stride=state_stride,
        denoiser_channels=DENOISER_WIDTHS[: len(strides) - 1],
        batch=_batch(patch, dims, why),
        foreground=_foreground(of, shape[:dims], patch, why),
        rotation=_rotation(of, dims, grid, why),
        mirror=mirror,
        test_mirror=mirror[:1] if dims == 3 else mirror,
        several_raters=several,
        anchor_time=0.5 if several else 0.8,
        coarse=coarse,
    )
    why["raters"] = (
        f"{of.raters} raters: members learn from all of them, and differ by a latent"
        if several
        else "one rater: members learn to disagree where the network cannot tell"
    )
    why["anchor_time"] = (
        f"{100 * plan.anchor_time:.0f} % of the time trains the encoder alone, as a plain U-Net, "
        "whose mask the anchor is; the denoiser then learns on its frozen features"
        f"{', longer than with one rater, since members have more to learn' if several else ''}"
    )
    return replace(plan, reasons=why)


def _coarse(of: Fingerprint, why: dict[str, str]) -> CoarsePlan | None:
    """The coarse network, where structures are small in their volumes."""
    if of.dims != 3 or of.stacks or of.photographs or not any(of.extent):
        return None
    box = tuple(
        min(n, max(LEAST_BOX, ceil((1.0 + 2.0 * MARGIN) * e)))
        for n, e in zip(of.shape, of.extent, strict=True)
    )
    share = prod(box) / prod(of.shape)
    if share >= SMALL:
        return None
    mm = [n * s for n, s in zip(of.shape, of.spacing, strict=True)]
    shortest = min(e * s for e, s in zip(of.extent, of.spacing, strict=True))
    least, most = (max(mm) / voxels for voxels in reversed(COARSE_VOXELS))
    wanted = min(max(shortest / COARSE_STRUCTURE, least), most)
    spacing = tuple(round(max(s, wanted), 2) for s in of.spacing)
    shape = tuple(max(1, round(n / s)) for n, s in zip(mm, spacing, strict=True))
    strides, kernels = topology(shape, spacing, len(COARSE_WIDTHS), {})
    why["coarse"] = (
        f"structures and their margins fill {100 * share:.0f} % of a volume: a small network finds "
        f"their box at {' x '.join(f'{s:g}' for s in spacing)} mm, and only the box is segmented "
        "(nnU-Net segments all of it, window by window)"
    )
    return CoarsePlan(box, spacing, shape, strides, kernels, COARSE_WIDTHS[: len(strides)])


def _within_box(of: Fingerprint, coarse: CoarsePlan) -> Fingerprint:
    """The fingerprint of the boxes instead of the volumes."""
    largest = tuple(map(min, of.largest, (ceil(1.2 * n) for n in coarse.box)))
    return replace(of, shape=coarse.box, largest=largest)


def median_shape(plan: Plan, of: Fingerprint) -> tuple[int, ...]:
    """Size of the median image that the network sees, for each of its axes."""
    shape = plan.coarse.box if plan.coarse else of.shape
    return _resampled(of, shape, plan.spacing, plan.axcodes)[: plan.dims]


def _axes(axcodes: str) -> list[int]:
    """Axis of RAS space that each axis of an orientation is."""
    return ["RAS".index(code) for code in axcodes]


def _dimensions(of: Fingerprint, why: dict[str, str]) -> tuple[int, bool, str]:
    if of.dims == 2:
        why["dims"] = "the images are planes"
        return 2, False, ""
    if of.stacks:
        why["dims"] = "the description says that planes are images of their own"
        return 2, True, ""
    coarse = max(range(3), key=lambda axis: (round(of.spacing[axis], 3), -of.shape[axis]))
    axcodes = "".join("RAS"[a] for a in range(3) if a != coarse) + "RAS"[coarse]
    few = FEW_SLICES if of.anisotropy >= THICK else HARDLY_ANY_SLICES
    if of.shape[coarse] <= few:
        why["dims"] = (
            f"a volume has {of.shape[coarse]} slices, {of.anisotropy:.1f} times as thick as they "
            "are fine: slice by slice, since so few say little of each other (nnU-Net would train "
            "both and compare)"
        )
        return 2, True, axcodes
    why["dims"] = "volumes: neighbouring slices help, and there are enough of them"
    return 3, False, axcodes if of.anisotropy >= THICK else "RAS"


def _spacing(of: Fingerprint, axcodes: str, slices: bool, why: dict[str, str]) -> tuple[float, ...]:
    if of.photographs:
        return _photograph_spacing(of, why)
    if not axcodes:
        why["spacing"] = "planes keep their own pixels"
        return ()
    axes = _axes(axcodes)
    spacing = [of.spacing[a] for a in axes]
    if slices:
        why["spacing"] = "median in the plane; the slices stay as they are"
        return (*(round(s, 3) for s in spacing[:2]), -1.0)
    if of.anisotropy >= THICK:
        spacing[-1] = of.finest[axes[-1]]
        why["spacing"] = "median; along the coarse axis the 10th percentile (nnU-Net's rule)"
    else:
        why["spacing"] = "median of the images"
    return tuple(round(s, 3) for s in spacing)


def _photograph_spacing(of: Fingerprint, why: dict[str, str]) -> tuple[float, ...]:
    """Factor by which photographs are made smaller, where structures are large and thick."""
    side = VOXELS[2] ** 0.5
    wanted = max(of.extent) * 1.1 / side
    allowed = of.thickness / THIN
    factor = round(max(1.0, min(wanted, allowed)), 2)
    if factor <= 1.1:
        why["spacing"] = "full resolution: structures are thin, or fit into a patch"
        return ()
    why["spacing"] = (
        f"pictures are made {factor:g} times smaller: structures of {max(of.extent):.0f} pixels "
        f"then fit into a patch, and stay {of.thickness / factor:.0f} pixels thick"
    )
    return (factor, factor)


def _resampled(
    of: Fingerprint, shape: Sequence[int], spacing: Sequence[float], axcodes: str
) -> tuple[int, ...]:
    """A shape in the network's space."""
    axes = _axes(axcodes) if axcodes else list(range(of.dims))
    ordered = [shape[a] for a in axes]
    if not spacing:
        return tuple(ordered)
    own = [of.spacing[a] for a in axes]
    return tuple(
        max(1, round(n if new < 0 else n * old / new))
        for n, old, new in zip(ordered, own, spacing, strict=True)
    )


def _network_spacing(
    of: Fingerprint, spacing: Sequence[float], dims: int, axcodes: str
) -> tuple[float, ...]:
    if spacing:
        return tuple(spacing[:dims])
    axes = _axes(axcodes) if axcodes else list(range(of.dims))
    return tuple(of.spacing[a] for a in axes)[:dims]


def _patch(shape: Sequence[int], spacing: Sequence[float], why: dict[str, str]) -> tuple[int, ...]:
    """The median image, its longest sides in mm cut until it has few enough voxels."""
    dims = len(shape)
    sides = [float(n) for n in shape]
    while prod(sides) > VOXELS[dims]:
        extents = [n * s for n, s in zip(sides, spacing, strict=True)]
        longest = extents.index(max(extents))
        sides[longest] *= 0.95
    whole = all(round(a) >= b for a, b in zip(sides, shape, strict=True))
    why["patch"] = (
        "the median image fits whole"
        if whole
        else f"the median image of {' x '.join(map(str, shape))} has more than {VOXELS[dims]} "
        "voxels, which a processor trains in time: a part of it, near a cube"
    )
    return tuple(max(8, round(n)) for n in sides)


def _window(
    shape: Sequence[int],
    largest: Sequence[int],
    patch: Sequence[int],
    multiple: Sequence[int],
    dims: int,
    why: dict[str, str],
) -> tuple[int, ...]:
    """The greatest image where it is not much larger than a patch, else the patch."""
    room = 4 * VOXELS[dims]
    whole = tuple(-(-n // m) * m for n, m in zip(largest, multiple, strict=True))
    if prod(whole) <= room:
        why["window"] = "the largest image is seen at once"
        return whole
    why["window"] = "as large as a patch; larger images are cut into overlapping windows"
    return tuple(patch)


def _state_stride(strides: Sequence[Sequence[int]], why: dict[str, str]) -> tuple[int, ...]:
    why["stride"] = (
        "masks are denoised on a grid half as fine along each axis that is halved first: what "
        "members disagree on is wider than a voxel"
    )
    return tuple(strides[1])


def _batch(patch: Sequence[int], dims: int, why: dict[str, str]) -> int:
    batch = 2 if dims == 3 else max(4, min(16, 12 * VOXELS[2] // prod(patch)))
    why["batch"] = (
        "2, the least that nnU-Net allows: steps are more than patches a step"
        if dims == 3
        else f"{batch} patches hold about {batch * prod(patch) // 1000} thousand pixels"
    )
    return batch


def _foreground(
    of: Fingerprint, shape: Sequence[int], patch: Sequence[int], why: dict[str, str]
) -> float:
    if prod(shape) <= 2 * prod(patch):
        why["foreground"] = "images are hardly larger than a patch: drawn evenly"
        return 0.0
    why["foreground"] = "images are larger than a patch: half of the patches lie around a structure"
    return 0.5


def _rotation(
    of: Fingerprint, dims: int, spacing: Sequence[float], why: dict[str, str]
) -> tuple[float, ...]:
    if dims == 2:
        angle = 0.5 if any(of.ordered) else 3.14
        why["rotation"] = (
            "30 degrees: classes lie in a fixed order, which helps to tell them apart"
            if any(of.ordered)
            else "any angle in the plane, as nnU-Net has it"
        )
        return (angle,)
    if max(spacing) / min(spacing) >= THICK:
        why["rotation"] = "in the plane only: slices are thick"
        return (0.0, 0.0, 0.35)
    why["rotation"] = "20 degrees about each axis"
    return (0.35, 0.35, 0.35)


def _mirror(
    of: Fingerprint, ordered: Sequence[bool], axcodes: str, why: dict[str, str]
) -> tuple[int, ...]:
    axes = tuple(axis for axis, one in enumerate(ordered) if not one)
    if of.sides and not axcodes:
        why["mirror"] = "none: labels tell left from right, and no file says which axis that is"
        return ()
    if of.sides:
        why["mirror"] = "not from left to right, which labels tell apart (nnU-Net mirrors all)"
        return tuple(axis for axis in axes if axcodes[axis] != "R")
    why["mirror"] = (
        "all axes"
        if len(axes) == len(ordered)
        else "not along an axis on which two classes lie in a fixed order (nnU-Net mirrors all)"
    )
    return axes


def _normalisation(of: Fingerprint, why: dict[str, str]) -> Normalisation:
    named = any(name.strip().lower() in ("ct", "computed tomography") for name in of.channels)
    if named and of.darkest < AIR:
        _, _, low, high = of.intensity[0]
        why["normalisation"] = (
            f"CT: clipped to {low:.0f} to {high:.0f}, the 0.5th and 99.5th percentile within the "
            "structures, and scaled by their mean and deviation, the same for all (nnU-Net's rule)"
        )
        return "ct"
    why["normalisation"] = "mean 0 and deviation 1 of each image: its scale is its own"
    return "z-score"
