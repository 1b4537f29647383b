"""What is told of a case before anyone has looked: unlike the training, expected Dice, presence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from medsegdiff.calibration.fitted import Calibration
from medsegdiff.core.types import Features
from medsegdiff.data.manifest import class_slug
from medsegdiff.segmentation.case_features import geometry_features
from medsegdiff.segmentation.segmented_case import SegmentedCase
from medsegdiff.triage.familiarity import ALPHA
from medsegdiff.triage.triage import present


class Triaged(NamedTuple):
    """Entries of a record, and warnings.

    Attributes:
        record: Entries ``features``, ``unlike_training``, ``review`` and ``present``.
        warnings: Sentences that warn.
    """

    record: dict[str, Any]
    warnings: list[str]


def triage_of(
    calibration: Calibration | None,
    case: SegmentedCase,
    labels: Mapping[int, str],
    placed: bool = False,
) -> Triaged:
    """What is told of a segmented case.

    Args:
        calibration: Calibration of the bundle, or None.
        case: Segmented case; one without features is told nothing of.
        labels: Class number -> name, background included.
        placed: Whether only places of the scan were segmented.
    """
    entries = ("features", "unlike_training", "review", "present")
    if not case.features:
        return Triaged(dict.fromkeys(entries), [])
    geometry = geometry_features(case.geometry, placed)
    places = tuple({"geometry": geometry, **features} for features in case.features)
    slugs = [class_slug(name) for value, name in labels.items() if value]
    fitted = calibration.triage if calibration else None
    unlike = fitted.unlike_training(places) if fitted else None
    if unlike:
        unlike["reasons"] = [in_words(reason, slugs) for reason in unlike["reasons"]]
    there = fitted.present(places, slugs) if fitted else present(places, slugs)
    record = {
        "features": [_rounded(place) for place in places],
        "unlike_training": unlike,
        "review": fitted.review(places) if fitted else None,
        "present": there,
    }
    return Triaged(record, [*_unlike(unlike), *_absent(case, labels, there)])


def _unlike(unlike: Mapping[str, Any] | None) -> list[str]:
    if unlike is None or unlike["p_value"] >= ALPHA:
        return []
    told = f": {'; '.join(unlike['reasons'])}" if unlike["reasons"] else ""
    return [
        f"unlike the cases that the calibration knows (p = {unlike['p_value']:.2g}){told}. "
        "Distrust the masks and their calibration until someone has looked at them"
    ]


def _absent(
    case: SegmentedCase, labels: Mapping[int, str], there: Mapping[str, float]
) -> list[str]:
    voxels = np.zeros(256, dtype=np.int64)
    for place in case.slabs():
        voxels += np.bincount(case.mask[place].ravel(order="K"), minlength=256)
    return [
        f"no {name} was found: the mask is empty, and the probability that it is in the image is "
        f"{100 * there[class_slug(name)]:.0f} %"
        for value, name in labels.items()
        if value and not voxels[value]
    ]


def in_words(reason: str, slugs: Sequence[str]) -> str:
    """A reason in words, with the names of the classes in place of their numbers.

    >>> in_words("quantile 0.05 of channel 1 is 3.0 deviations lower", [])
    'the 5 % quantile of the intensities (channel 1) is 3.0 deviations lower'
    >>> in_words("volume of class 2 is 4.1 deviations higher", ["head", "body"])
    'volume of body is 4.1 deviations higher'
    """
    for number, slug in reversed(list(enumerate(slugs, start=1))):
        reason = reason.replace(f"class {number}", slug)
    reason = re.sub(
        r"^quantile (\S+) of (channel \d+)",
        lambda m: f"the {100 * float(m[1]):g} % quantile of the intensities ({m[2]})",
        reason,
    )
    return re.sub(
        r"^difference at (\d+) of (channel \d+)",
        r"the mean difference of voxels \1 apart (\2)",
        reason,
    )


def _rounded(features: Features) -> Features:
    return {
        group: {name: round(value, 5) for name, value in of_group.items()}
        for group, of_group in features.items()
    }
