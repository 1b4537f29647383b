"""Where in a scan to segment: everywhere, at places that are found, or at those of the user."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import nn

from medsegdiff.calibration.scaling import Scaling
from medsegdiff.cases.run_record import WHOLE, volumes_of, whole_scan
from medsegdiff.core.errors import InputError
from medsegdiff.core.storage import Storage
from medsegdiff.core.types import Geometry, Locate
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.transforms import load
from medsegdiff.locating.given import GivenPlaces
from medsegdiff.locating.place import LEAST_INSIDE, Located, Uprightd, cut_out
from medsegdiff.segmentation.clicked_piece import keep_clicked
from medsegdiff.segmentation.pasting import pasted
from medsegdiff.segmentation.segmented_case import (
    CaseInferer,
    SegmentedCase,
    case_item,
    segment_item,
)

Locator = Callable[[MetaTensor], Located]
"""Function from a scan (C, X, Y, Z) to its places; it raises ``InputError`` where there is none."""


class Placing:
    """Decides where in a scan to segment.

    A place that the user gives comes first. A scan that is not much larger than those that the
    bundle was made for is segmented as it is. In any other, the places are searched for, if the
    bundle can; if it cannot, the scan is refused before anything is computed.

    Args:
        locator: Finds the places of a scan; None: the bundle cannot.
        place_mm: Size in mm of the box around a point that the user gives; empty: the bundle does
            not say.
        locate: ``auto``, or ``off``: nothing is searched for.
        at: Points of the user, see :class:`~medsegdiff.locating.GivenPlaces`.
        roi: Box of the user, likewise.
        anyway: Whether to segment a scan that would be refused.
        coarsest_mm: Greatest spacing in mm that the bundle can make use of; a scan that is coarser
            along an axis is refused. None: any.
        preparation: Chain of MONAI that brings a place that is cut out of a scan to the grid and
            the intensities that the bundle was trained on; what is segmented as it is does not go
            through it. None: nothing is to be done.
        clicked_mm: Greatest distance in mm from a point of the user to the piece of a mask that
            it is on; other pieces are removed. None: all are kept.
        spacing: Spacing in mm of the network's grid, to which a place that is turned is resampled
            at once; empty: that of the scan along its finest axis.
        search_from: Extent of a scan relative to the greatest that the bundle was made for, from
            which the locator searches.

    Raises:
        UsageError: both a point and a box are given, or they cannot be understood.
        InputError: their file cannot be read.
    """

    def __init__(
        self,
        locator: Locator | None = None,
        place_mm: Sequence[float] = (),
        locate: Locate = "auto",
        at: str | None = None,
        roi: str | None = None,
        anyway: bool = False,
        coarsest_mm: float | None = None,
        preparation: Compose | None = None,
        clicked_mm: float | None = None,
        search_from: float = WHOLE,
        spacing: Sequence[float] = (),
    ) -> None:
        self.locator = locator if locate == "auto" else None
        self.given = None if at is None and roi is None else GivenPlaces(place_mm, at, roi)
        self.anyway, self.coarsest_mm, self.search_from = anyway, coarsest_mm, search_from
        self.preparation = () if preparation is None else preparation.flatten().transforms
        self.clicked_mm = None if at is None else clicked_mm
        self.spacing = tuple(spacing)
        given = self.given.record() if self.given else None
        self.settings = {
            "locate": locate,
            "places": given,
            "anyway": anyway,
            "clicked_mm": self.clicked_mm,
        }

    def places_in(
        self, scan: MetaTensor, geometry: Geometry, expected_mm: Sequence[Sequence[float]]
    ) -> Located | None:
        """The places to segment in a scan; None: all of it.

        Args:
            scan: Image (C, *spatial) with its affine.
            geometry: Its geometry.
            expected_mm: Least and greatest extent along each axis that the bundle was made for.

        Raises:
            InputError: the scan is not what the bundle was made for, or has no such place.
        """
        spacing = max(geometry.spacing)
        too_coarse = self.coarsest_mm is not None and spacing > self.coarsest_mm
        if too_coarse and geometry.unit == "mm" and not self.anyway:
            needed = f"this bundle needs {self.coarsest_mm:g} or less"
            rule = f"has voxels of {spacing:.1f} mm, but {needed}"
            raise InputError("scan", rule, "Take a finer scan, another bundle, or add --anyway")
        if self.given is not None:
            if scan.ndim != 4:
                rule = "is a plane, in which no place in RAS+ mm can be given"
                raise InputError("scan", rule, "Leave out --at and --roi")
            return self.given(scan)
        searches = self.locator is not None and scan.ndim == 4
        times = self.search_from if searches else WHOLE
        too_large = whole_scan(scan.shape[1:], geometry, expected_mm, times)
        if not too_large or self.anyway:
            return None
        if self.locator is None or scan.ndim != 4:
            where = "Say where with --roi or --at (RAS+ mm)" if scan.ndim == 4 else "Crop it"
            raise InputError("scan", too_large, f"{where}, take another bundle, or add --anyway")
        return self.locator(scan)


def segment_placed(
    case: CaseInput,
    network: nn.Module,
    preprocessing: Compose,
    inferer: CaseInferer,
    placing: Placing,
    labels: Mapping[int, str],
    expected_mm: Sequence[Sequence[float]] = (),
    scaling: Scaling | None = None,
    storage: Storage | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[SegmentedCase, dict[str, Any] | None]:
    """All maps of one case, whose places are cut out, segmented, and pasted back.

    Args:
        case: Name and files of the case.
        network: Network in evaluation mode, on the device to use.
        preprocessing: MONAI chain from ``{"case", "image"}`` to the network's input, with
            ``LoadCased`` first.
        inferer: Inferer that makes the ensemble.
        placing: Decision where to segment.
        labels: Value of a class -> its name, background included.
        expected_mm: Least and greatest extent along each axis that the bundle was made for.
        scaling: Calibration of the mean probability.
        storage: Maker of the arrays; None: they are in memory.
        progress: Callback after each window, called with the number done and the total.

    Returns:
        The segmented case, and the entry ``location`` of its record: None for a whole scan.

    Raises:
        InputError: the case's files cannot be used, it is not what the bundle was made for, or the
            disk has no room for its maps.
    """
    started, storage = time.perf_counter(), storage or Storage()
    first, *rest = preprocessing.flatten().transforms
    scan = load(Compose([first]), case_item(case))
    image, geometry = scan["image"], scan["geometry"]
    try:
        located = placing.places_in(image, geometry, expected_mm)
    except InputError as error:
        raise type(error)(case.id, error.rule, error.remedy) from error
    seconds = time.perf_counter() - started
    if located is None:
        chain = Compose(rest)
        item = load(chain, scan)
        seconds = time.perf_counter() - started
        whole = segment_item(
            item, case.id, network, chain, inferer, scaling, storage, progress, seconds
        )
        return whole, None
    parts: dict[str, tuple[tuple[slice, ...], SegmentedCase]] = {}
    volumes: dict[str, dict[str, float]] = {}
    intervals: dict[str, dict[str, list[float]]] = {}
    for place in located.places:
        coarse = located.by == "network"  # its voxels may reach far beyond a thin scan
        part = cut_out(image, place, 0.0 if coarse else LEAST_INSIDE)
        upright = Uprightd("image", part, placing.spacing)
        chain = Compose([upright, *placing.preparation, *rest])
        item = load(chain, {"case": case.id, "image": part.image, "geometry": geometry})
        name = f"{case.id}/{place.name}" if place.name else case.id
        found = segment_item(item, name, network, chain, inferer, scaling, storage, progress)
        if placing.clicked_mm is not None:
            keep_clicked(found, part.index_of(place.centre), placing.clicked_mm)
        parts[place.name] = part.box, found
        of_place = volumes_of(found, labels)
        volumes[place.name] = {name: round(one["ensemble"], 4) for name, one in of_place.items()}
        intervals[place.name] = {name: one["interval_90"] for name, one in of_place.items()}
    values = torch.as_tensor(image.as_tensor()).numpy()
    segmented = pasted(values, geometry, parts, storage)
    segmented.seconds["load"] = seconds
    record = {"volume_ml": volumes, "volume_interval_90_ml": intervals}
    return segmented, {**located.record(), **record}
