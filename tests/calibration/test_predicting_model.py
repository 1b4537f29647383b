"""A calibration is bound to what made the masks: a bundle, its single networks, another model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medsegdiff.calibration import predicting_model
from medsegdiff.calibration.predicting_model import (
    PredictingModel,
    model_of_bundle,
    model_of_records,
)
from medsegdiff.core.errors import InputError
from medsegdiff.data.manifest import Case
from tests.calibration.small_fits import SLUGS, small_bundle


def test_a_bundle_that_made_all_of_them(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path / "some_mr")
    assert model_of_bundle(bundle) == PredictingModel(
        "some_mr", "1.2", SLUGS, bundle.weights_hash(), frozenset([bundle.fingerprint()]), (), None
    )
    assert model_of_bundle(bundle).described() == {"bundle": "some_mr", "bundle_version": "1.2"}
    (bundle.root / "configs" / "metadata.json").write_text(
        json.dumps({k: v for k, v in bundle.metadata.items() if k != "version"})
    )
    assert model_of_bundle(type(bundle)(bundle.root)).version == ""


def test_an_ensemble_of_the_networks_that_made_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, *singles = (small_bundle(tmp_path / name) for name in ("all", "one", "two"))
    for single in singles:
        (single.root / "models" / "model.pt").write_bytes(single.name.encode())
        with single.config("inference").open("a") as file:
            file.write("# one network\n")
    seen: Any = []
    monkeypatch.setattr(
        predicting_model, "is_made_of", lambda *given: seen.append(given) or len(seen) == 1
    )
    found = model_of_bundle(bundle, singles)
    assert seen == [(bundle, singles)]
    assert found.run_hashes == {one.fingerprint() for one in singles}
    assert found.singles == tuple(one.weights_hash() for one in singles)
    assert found.weights_hash == bundle.weights_hash() not in found.singles
    assert found.described()["single_networks"] == list(found.singles)
    with pytest.raises(InputError) as told:  # now it is made of others
        model_of_bundle(bundle, singles)
    assert str(told.value) == (
        f"{bundle.root}: is not the ensemble of the networks that made the predictions, "
        "nor one like them. Put it together from them again"
    )


def test_a_network_like_those_that_made_them_trained_on_all_cases(tmp_path: Path) -> None:
    bundle, *singles = (small_bundle(tmp_path / name) for name in ("all", "one", "two"))
    for single in singles:
        (single.root / "models" / "model.pt").write_bytes(single.root.parent.name.encode())
    found = model_of_bundle(bundle, singles)
    assert found.weights_hash == bundle.weights_hash() not in found.singles
    assert found.singles == tuple(one.weights_hash() for one in singles)


def adopted(folder: Path, networks: list[str | None], **changed: Any) -> list[Case]:
    """Cases of another program, each by the network of this name."""
    cases = []
    for number, network in enumerate(networks):
        model = {"network": network, "classes": ["liver", "spleen"], "identity": {"plans": "x"}}
        record = {"bundle": "nnunet", "bundle_version": "2", "bundle_hash": "ab", "model": model}
        name = f"case_{number}"
        (folder / name).mkdir(parents=True)
        (folder / name / f"{name}_run.json").write_text(json.dumps(record | changed))
        cases.append(Case(name, (Path("image.nii.gz"),), (), name))
    return cases


def test_the_model_that_adopted_cases_tell_of(tmp_path: Path) -> None:
    found = model_of_records(adopted(tmp_path, ["fold 1", "fold 0", "fold 1", None]), tmp_path)
    assert found == PredictingModel(
        "nnunet",
        "2",
        ("liver", "spleen"),
        "ab",
        frozenset(["ab"]),
        ("fold 0", "fold 1"),
        {"plans": "x"},
    )
    assert found.described() == {
        "single_networks": ["fold 0", "fold 1"],
        "model": {"plans": "x"},
        "bundle": "nnunet",
        "bundle_version": "2",
    }


@pytest.mark.parametrize("networks", [[None, None], ["fold 0", "fold 0"], ["fold 0", None]])
def test_one_network_is_no_ensemble(networks: list[str | None], tmp_path: Path) -> None:
    assert model_of_records(adopted(tmp_path, networks), tmp_path).singles == ()


@pytest.mark.parametrize("changed", [{"model": None}, {"model": "nnunet"}])
def test_cases_of_this_package_need_their_bundle(changed: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError) as told:
        model_of_records(adopted(tmp_path, ["fold 0"], **changed), tmp_path)
    assert str(told.value) == (
        f"{tmp_path / 'case_0'}: was not adopted from another program, and no bundle is given. "
        "Give the bundle that made them, or bring them here by medsegdiff adopt"
    )


def test_a_case_without_a_record_needs_its_bundle(tmp_path: Path) -> None:
    cases = adopted(tmp_path, ["fold 0", "fold 0"])
    (tmp_path / "case_1" / "case_1_run.json").unlink()
    with pytest.raises(InputError, match="case_1: was not adopted"):
        model_of_records(cases, tmp_path)
