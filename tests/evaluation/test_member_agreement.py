"""The setting at which members agree as often as raters do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.core.errors import UsageError
from medsegdiff.data.manifest import load_manifest
from medsegdiff.data.predictions import read_reference
from medsegdiff.evaluation import member_agreement as module
from medsegdiff.evaluation.member_agreement import FIGURES, compare_settings, judge, summed
from medsegdiff.metrics.calibration_error import region_of_interest
from medsegdiff.phantoms.cohort import write_cohort
from medsegdiff.segmentation.segmented_case import segment_case
from tests.bundle.test_monai_bundle import monai_run

SMALL = {"members": 4, "steps": 1}


@pytest.mark.long
def test_the_bundle_says_which_value_is_best(bundle: Bundle, cohort: Path, tmp_path: Path) -> None:
    file = tmp_path / "member_agreement.json"
    changes = {"output_file": file, "values": "[0.0, 3.0]", "inference": str(SMALL)}
    monai_run(bundle, "member_agreement", dataset_dir=cohort, **changes)
    content = json.loads(file.read_text())
    still, loud = content["rows"]
    assert (still["noise_scale"], loud["noise_scale"]) == (0.0, 3.0)
    assert content["best"] == min(content["rows"], key=lambda row: row["votes_ece"])["noise_scale"]
    assert 0.0 < still["votes_ece"] < 1.0 and 0.0 < loud["votes_ece"] < 1.0


def test_each_scale_is_that_of_the_sampling(
    bundle: Bundle, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled: list[tuple[float, int]] = []

    def watched(case: Any, network: Any, preprocessing: Any, inferer: Any) -> Any:
        sampled.append((inferer.sampling.noise_scale, inferer.sampling.members))
        return segment_case(case, network, preprocessing, inferer)

    monkeypatch.setattr(module, "segment_case", watched)
    compare_settings(
        bundle, cohort, tmp_path / "out.json", "noise_scale", [0.5, 1.5], inference=SMALL
    )
    assert sampled == [(0.5, 4), (1.5, 4)]


def test_figures_are_those_of_the_members_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members that are the raters themselves are never wrong, and those of one rater are."""
    manifest = load_manifest(write_cohort(tmp_path, cases=2, size=12, raters=3))

    def members_are(choose: Any) -> list[Any]:
        def segmented(case: Any, *_: Any) -> Any:
            one = next(c for c in manifest.cases if c.id == case.id)
            return SimpleNamespace(members=choose(read_reference(one, manifest)[0]))

        monkeypatch.setattr(module, "segment_case", segmented)
        return [judge(case, manifest, (None, None, None)) for case in manifest.cases]

    exact = summed(members_are(lambda annotations: annotations))
    assert exact["votes_ece"] == pytest.approx(0.0) and exact["ged2"] == pytest.approx(0.0)
    assert exact["diversity"] == pytest.approx(exact["rater_diversity"])
    same = summed(members_are(lambda annotations: np.repeat(annotations[:1], 3, axis=0)))
    assert same["votes_ece"] > 0.01 and same["diversity"] == 0.0
    assert set(exact) == {"votes_ece", *FIGURES}


def test_planes_of_a_stack_are_judged_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = load_manifest(write_cohort(tmp_path, cases=1, size=12, raters=2))
    (case,) = manifest.cases
    annotations, _ = read_reference(case, manifest)
    found = SimpleNamespace(members=annotations)
    monkeypatch.setattr(module, "segment_case", lambda *_: found)
    planes = int(annotations.any(axis=(0, 1, 2)).sum())
    _, whole = judge(case, manifest, (None, None, None))
    _, sets = judge(case, replace(manifest, spatial_dims=2), (None, None, None))
    assert (len(whole), len(sets)) == (1, planes)


@pytest.mark.parametrize(
    ("setting", "values", "told"),
    [
        ("noise_scale", [], "one at least"),
        ("noise_scale", [-1.0], "noise_scale must be 0 or more"),
        ("diversity_weight", [1.5], r"diversity_weight must be in \[0, 1\]"),
        ("diversity_wieght", [0.5], "Did you mean diversity_weight"),
    ],
)
def test_values_that_do_not_suit_are_refused(
    bundle: Bundle, cohort: Path, tmp_path: Path, setting: str, values: list[float], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        compare_settings(bundle, cohort, tmp_path / "out.json", setting, values)


def test_the_value_of_the_least_error_is_best_and_all_is_written(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, seen = load_manifest(cohort), []

    def parts(bundle: Any, changes: Any) -> list[Any]:
        seen.append((bundle, dict(changes)))
        return [changes["noise_scale"]]

    errors = {0.5: 0.3, 1.0: 0.1, 1.5: 0.2}
    monkeypatch.setattr(module, "_parts", parts)
    monkeypatch.setattr(module, "judge", lambda case, given, of: (case.id, given.name, of[0]))
    monkeypatch.setattr(module, "summed", lambda judged: {"votes_ece": errors[judged[0][2]]})
    told: Any = []
    bundle: Any = "bundle"
    found = compare_settings(
        bundle,
        cohort,
        tmp_path / "out.json",
        "noise_scale",
        list(errors),
        fold=1,
        inference={"members": 3},
        progress=lambda cases: told.append(len(cases)) or cases,
    )
    held_out = manifest.split(1)[1]
    assert seen == [
        ("bundle", {"calibration": "off", "members": 3, "noise_scale": value}) for value in errors
    ]
    assert told == [len(held_out)] * 3
    assert found == {
        "data": manifest.name,
        "fold": 1,
        "cases": len(held_out),
        "rows": [{"noise_scale": value, "votes_ece": error} for value, error in errors.items()],
        "best": 1.0,
    }
    assert json.loads((tmp_path / "out.json").read_text()) == found
    compare_settings(bundle, cohort, tmp_path / "out.json", "noise_scale", [1.0])
    assert json.loads((tmp_path / "out.json").read_text())["fold"] == 0
    with pytest.raises(UsageError) as error:
        compare_settings(bundle, cohort, tmp_path / "out.json", "noise_scale", [])
    assert str(error.value) == "values: must be one at least. Give for instance [0.6, 0.8, 1.0]"


def test_a_case_is_segmented_as_it_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = load_manifest(write_cohort(tmp_path, cases=1, size=12, raters=3))
    case = replace(manifest.cases[0], spacing=(0.5, 0.7))
    annotations, _ = read_reference(manifest.cases[0], manifest)
    seen: list[Any] = []

    def segmented(*given: Any) -> Any:
        seen.extend(given)
        return SimpleNamespace(members=annotations[[0, 1]])

    monkeypatch.setattr(module, "segment_case", segmented)
    monkeypatch.setattr(module, "read_reference", lambda *_: (annotations, None))
    bins, (figures,) = judge(case, manifest, ("network", "chain", "inferer"))
    assert (seen[0].id, seen[0].image, seen[0].spacing) == (case.id, case.images, (0.5, 0.7))
    assert seen[1:] == ["network", "chain", "inferer"]
    values = [value for value in manifest.labels if value]
    marked = [annotations == value for value in values]
    regions = [region_of_interest(one.any(axis=0)) for one in marked]
    assert bins.count.sum() == sum(region.sum() for region in regions)
    votes = [one[:2].mean(axis=0)[region] for one, region in zip(marked, regions, strict=True)]
    assert bins.probability.sum() == pytest.approx(sum(one.sum() for one in votes))
    shares = [one.mean(axis=0)[region] for one, region in zip(marked, regions, strict=True)]
    assert bins.positive.sum() == pytest.approx(sum(one.sum() for one in shares))
    assert figures["diversity"][0] < figures["rater_diversity"][0]
    two = summed([(bins, [figures]), (bins, [figures, {name: [0.0] for name in FIGURES}])])
    assert two["votes_ece"] == pytest.approx(bins.ece)
    for name in FIGURES:
        assert two[name] == pytest.approx(2 / 3 * figures[name][0])
