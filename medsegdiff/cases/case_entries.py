"""Entries of a case's record that follow from its maps: calibration, guarantee, triage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from medsegdiff.calibration.application import (
    calibration_record,
    calibration_warnings,
    guarantee_record,
    shift_warnings,
)
from medsegdiff.calibration.fitted import Calibration, ClassGuarantee
from medsegdiff.cases.triaged import triage_of
from medsegdiff.cases.writer import RequestedFiles
from medsegdiff.segmentation.segmented_case import SegmentedCase


class CaseEntries(NamedTuple):
    """Entries of a record, warnings, and the guarantee of the masks to write.

    Attributes:
        record: Entries ``calibration``, ``guarantee``, ``features``, ``unlike_training``,
            ``review`` and ``present``.
        warnings: Sentences that warn.
        guarantee: Guarantee of each class, by its name in files; empty without one.
    """

    record: dict[str, Any]
    warnings: list[str]
    guarantee: dict[str, ClassGuarantee]


def case_entries(
    calibration: Calibration | None,
    case: SegmentedCase,
    labels: Mapping[int, str],
    settings: Mapping[str, Any],
    wanted: RequestedFiles,
    placed: bool = False,
) -> CaseEntries:
    """The entries of a segmented case.

    Args:
        calibration: Calibration that was applied to it, or None.
        case: Segmented case.
        labels: Class number -> name, background included.
        settings: Settings that the masks depend on, which should be those of the calibration.
        wanted: Files to write, with the level of the guarantee and the hash of the input.
        placed: Whether only places of the scan were segmented.
    """
    record: dict[str, Any] = {"calibration": None, "guarantee": None}
    warnings: list[str] = []
    guarantee: dict[str, ClassGuarantee] = {}
    level = wanted.guarantee
    if calibration:
        shift = case.calibration_shift
        warnings += calibration_warnings(calibration, settings, level)
        warnings += shift_warnings(calibration, shift)
        record["calibration"] = calibration_record(calibration, wanted.input_hash, shift)
    if calibration and level:
        guarantee = calibration.guarantee(level)
        voxel_ml = case.geometry.voxel_ml
        record["guarantee"] = guarantee_record(case.mean, voxel_ml, labels, guarantee, level)
    told = triage_of(calibration, case, labels, placed)
    return CaseEntries(record | told.record, warnings + told.warnings, guarantee)
