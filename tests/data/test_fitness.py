from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.fitness import CheckReport, Problem, check
from medsegdiff.data.manifest import Case, load_manifest
from medsegdiff.data.transforms import read_channels
from medsegdiff.phantoms.cohort import write_cohort

FIRST = "phantom_000"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, cases=6, classes=2, size=12)
    return folder


@pytest.fixture
def cohort(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "cohort"))


def describe(cohort: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = cohort / "dataset.json"
    described = json.loads(file.read_text())
    change(described)
    file.write_text(json.dumps(described))


def replace(file: Path, change: Callable[[np.ndarray], np.ndarray], affine: Any = None) -> None:
    image = nib.load(file)
    array = change(np.asanyarray(image.dataobj))
    nib.save(nib.Nifti1Image(array, image.affine if affine is None else affine), file)


def image_of(cohort: Path, case: str = FIRST) -> Path:
    return cohort / "imagesTr" / f"{case}.nii.gz"


def label_of(cohort: Path, case: str = FIRST) -> Path:
    return cohort / "labelsTr" / f"{case}.nii.gz"


def given_labels(cohort: Path, change: Callable[[int, np.ndarray], np.ndarray]) -> None:
    for number, file in enumerate(sorted((cohort / "labelsTr").glob("*.nii.gz"))):
        replace(file, lambda array, number=number: change(number, array))  # type: ignore[misc]


def only(report: CheckReport) -> Problem:
    (problem,) = report.problems
    assert problem.remedy
    return problem


def test_sound_cohort(sound: Path) -> None:
    report = check(sound)
    assert report.problems == ()
    assert report.fit
    assert (report.facts["cases"], report.facts["patients"], report.facts["labelled"]) == (6, 6, 6)


def test_facts_agree_with_the_files(sound: Path) -> None:
    report = check(load_manifest(sound))
    images = [nib.load(image_of(sound, case.case)) for case in report.cases]
    labels = [nib.load(label_of(sound, case.case)).get_fdata() for case in report.cases]
    shapes = np.array([image.shape for image in images])
    assert report.facts["shape"]["median"] == np.median(shapes, axis=0).tolist()
    spacings = np.array([image.header.get_zooms() for image in images])
    np.testing.assert_allclose(report.facts["spacing_mm"]["max"], spacings.max(0), rtol=1e-5)
    assert report.facts["intensity"]["max"] == max(image.get_fdata().max() for image in images)
    counted = sum(np.count_nonzero(label == 2) for label in labels)
    assert report.facts["label_voxels"]["Structure 2"] == counted
    json.dumps(report.facts)


def test_progress_sees_every_case(sound: Path) -> None:
    seen: list[str] = []

    def watch(cases: Sequence[Case]) -> Iterable[Case]:
        for case in cases:
            yield case
            seen.append(case.id)

    check(sound, progress=watch)
    assert len(seen) == 6


def test_broken_description_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        check(tmp_path)


class TestFiles:
    def test_missing_image(self, cohort: Path) -> None:
        image_of(cohort).unlink()
        problem = only(check(cohort))
        assert (problem.case, problem.severity) == (FIRST, "error")
        assert "image of a label is missing" in problem.rule

    def test_missing_label(self, cohort: Path) -> None:
        label_of(cohort).unlink()
        problem = only(check(cohort))
        assert (problem.case, problem.severity) == (FIRST, "error")
        assert "label of an image is missing" in problem.rule

    def test_listed_without_label(self, cohort: Path) -> None:
        label_of(cohort).unlink()
        describe(cohort, lambda d: d["training"][0].pop("label"))
        report = check(cohort)
        problem = only(report)
        assert (problem.case, problem.severity) == (FIRST, "warning")
        assert "image without a label" in problem.rule
        assert report.fit

    def test_label_not_in_the_listing(self, cohort: Path) -> None:
        describe(cohort, lambda d: d["training"][0].pop("label"))
        rules = [problem.rule for problem in check(cohort).problems if problem.case == FIRST]
        assert any("label file is not in the listing" in rule for rule in rules)

    @pytest.mark.parametrize(
        ("keep", "rule"),
        [
            ("imagesTr", "image without a label, not in the listing"),
            ("labelsTr", "label without an image, not in the listing"),
            ("both", "image and label are not in the listing"),
        ],
    )
    def test_not_listed(self, cohort: Path, keep: str, rule: str) -> None:
        describe(cohort, lambda d: d["training"].pop(0))
        if keep == "imagesTr":
            label_of(cohort).unlink()
        if keep == "labelsTr":
            image_of(cohort).unlink()
        problem = only(check(cohort))
        assert (problem.case, problem.severity) == (FIRST, "warning")
        assert rule in problem.rule

    @pytest.mark.parametrize("name", [f"{'x' * 300}.nii.gz", f"{'x' * 300}/a.nii.gz"])
    def test_path_that_no_system_takes(self, cohort: Path, name: str) -> None:
        describe(cohort, lambda d: d["training"][0].update(image=name))
        report = check(cohort)
        assert len(report.cases) == 5
        assert any("image of a label is missing" in p.rule for p in report.problems)

    @pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError()])
    def test_other_cases_are_examined(
        self, sound: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def fail_once(sources: Sequence[Path], *args: Any) -> Any:
            if FIRST in str(sources[0]):
                raise error
            return read_channels(sources, *args)

        monkeypatch.setattr("medsegdiff.data.fitness.read_channels", fail_once)
        report = check(sound)
        problem = only(report)
        assert (problem.case, problem.severity) == (FIRST, "error")
        assert "cannot be read (" in problem.rule
        assert len(report.cases) == 5

    def test_hidden_files_are_no_cases(self, cohort: Path) -> None:
        (cohort / "imagesTr" / "._phantom_000.nii.gz").touch()
        assert check(cohort).problems == ()


class TestImages:
    @pytest.mark.parametrize(
        ("change", "rule"),
        [
            (lambda a: np.where(a == a.max(), np.nan, a.astype(np.float32)), "NaN"),
            (lambda a: np.stack([a] * 3, axis=-1), "has 4 axes"),
            (lambda a: a[:, :, 0], "a volume is needed"),
        ],
        ids=["NaN", "4D", "2D"],
    )
    def test_unusable(self, cohort: Path, change: Any, rule: str) -> None:
        replace(image_of(cohort), change)
        report = check(cohort)
        problem = only(report)
        assert (problem.case, problem.severity) == (FIRST, "error")
        assert rule in problem.rule
        assert len(report.cases) == 5

    def test_constant(self, cohort: Path) -> None:
        replace(image_of(cohort), lambda a: np.full_like(a, 7))
        problem = only(check(cohort))
        assert (problem.case, problem.severity) == (FIRST, "error")
        assert "constant: 7" in problem.rule

    @pytest.mark.parametrize("part", ["imagesTr", "labelsTr"])
    def test_unreadable(self, cohort: Path, part: str) -> None:
        (cohort / part / f"{FIRST}.nii.gz").write_text("this is not an image")
        problem = only(check(cohort))
        assert (problem.case, problem.severity) == (FIRST, "error")
        assert "cannot be read" in problem.rule

    def test_channels(self, cohort: Path) -> None:
        image = f"imagesTr/{FIRST}.nii.gz"
        describe(cohort, lambda d: d["training"][0].update(image=[image, image]))
        assert "has 2 channels, but 1 are needed" in only(check(cohort)).rule

    @pytest.mark.parametrize(("same_patient", "severity"), [(True, "warning"), (False, "error")])
    def test_duplicate(self, cohort: Path, same_patient: bool, severity: str) -> None:
        other = "phantom_003"
        for path in (image_of, label_of):
            shutil.copy(path(cohort), path(cohort, other))
        if same_patient:
            describe(cohort, lambda d: d["training"][3].update(patient=FIRST))
        problem = only(check(cohort))
        assert (problem.case, problem.severity) == (other, severity)
        assert f"the same as that of {FIRST}" in problem.rule


class TestLabels:
    def test_shape(self, cohort: Path) -> None:
        replace(label_of(cohort), lambda a: a[:-1])
        assert "label has shape" in only(check(cohort)).rule

    def test_affine(self, cohort: Path) -> None:
        replace(label_of(cohort), lambda a: a, affine=np.eye(4))
        assert "voxels from its image" in only(check(cohort)).rule

    def test_unknown_value(self, cohort: Path) -> None:
        replace(label_of(cohort), lambda a: np.where(a == 2, 5, a).astype(np.uint8))
        assert "unknown label values [5]" in only(check(cohort)).rule

    def test_class_that_never_occurs(self, cohort: Path) -> None:
        describe(cohort, lambda d: d["labels"].update({"3": "ghost"}))
        problem = only(check(cohort))
        assert (problem.case, problem.severity) == ("", "warning")
        assert "class 3 (ghost) never occurs" in problem.rule

    def test_no_label_at_all(self, cohort: Path) -> None:
        shutil.rmtree(cohort / "labelsTr")
        describe(cohort, lambda d: [entry.pop("label") for entry in d["training"]])
        report = check(cohort)
        assert not report.fit
        assert report.problems[-1].rule == "no case has a readable label"


class TestFolds:
    def test_patient_in_several(self, cohort: Path) -> None:
        patients = [f"phantom_{i:03d}" for i in range(6)]
        describe(cohort, lambda d: d.update(folds=[patients[:3], patients[2:]]))
        problem = only(check(cohort))
        assert problem.severity == "error"
        assert "patients are in several folds: folds[0][2], folds[1][0]" in problem.rule

    def test_cases_called_after_dicom_folders(self, cohort: Path) -> None:
        (cohort / "doe_jane").mkdir()
        entry = {"image": "doe_jane", "patient": FIRST}
        describe(cohort, lambda d: d["training"].append(entry))
        (warning,) = [p for p in check(cohort).problems if "DICOM folders" in p.rule]
        assert warning.severity == "warning" and "doe" not in warning.rule
        describe(cohort, lambda d: d["training"][-1].update(case="c1"))
        assert not [p for p in check(cohort).problems if "DICOM folders" in p.rule]

    def test_patients_without_case_or_fold(self, cohort: Path) -> None:
        describe(cohort, lambda d: d.update(folds=[[FIRST, "stranger"], ["phantom_001"]]))
        stranger, left_out = check(cohort).problems
        assert "no case: folds[0][1]" in stranger.rule
        assert "in no fold" in left_out.rule
        assert "and 1 more" in left_out.rule
        assert {stranger.severity, left_out.severity} == {"warning"}


class TestOutliers:
    def test_much_larger_volume(self, cohort: Path) -> None:
        for path in (image_of(cohort), label_of(cohort)):
            replace(path, lambda a: np.pad(a, [(0, 30)] * 3))
        problem = only(check(cohort))
        assert (problem.case, problem.severity) == (FIRST, "warning")
        assert "times more than the usual" in problem.rule
        assert "windows" in problem.rule

    def test_other_voxels(self, cohort: Path) -> None:
        affine = nib.load(image_of(cohort)).affine @ np.diag([1, 1, 6, 1])
        for path in (image_of(cohort), label_of(cohort)):
            replace(path, lambda a: a, affine=affine)
        problem = only(check(cohort))
        assert (problem.case, problem.severity) == (FIRST, "warning")
        assert "longer than usual along axis 2" in problem.rule


def test_all_problems_are_found_at_once(cohort: Path) -> None:
    image_of(cohort).unlink()
    label_of(cohort, "phantom_001").unlink()
    replace(image_of(cohort, "phantom_002"), lambda a: a * np.float32(np.nan))
    replace(label_of(cohort, "phantom_003"), lambda a: a + 9)
    report = check(cohort)
    assert [problem.case for problem in report.problems] == [f"phantom_{i:03d}" for i in range(4)]
    assert [case.case for case in report.cases] == ["phantom_001", "phantom_004", "phantom_005"]
    assert not report.fit


def test_shared_hippocampus_misses_nothing(shared_data: Path) -> None:
    if not (shared_data / "hippocampus").is_dir():
        pytest.skip("no hippocampus among the real data")
    report = check(shared_data / "hippocampus")
    assert report.problems == ()
    assert report.facts["readable"] == 208
    assert len(report.cases) == 208


def test_clinical_volume_among_crops(shared_data: Path, tmp_path: Path) -> None:
    """A volume of 512 x 512 x 200 voxels among the real crops stands out, and nothing else."""
    source = shared_data / "hippocampus"
    if not source.is_dir():
        pytest.skip("no hippocampus among the real data")
    described = json.loads((source / "dataset.json").read_text())
    entries = described["training"][:6]
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / part).mkdir()
        for entry in entries:
            name = Path(entry["image"]).name
            shutil.copy(source / part / name, tmp_path / part / name)
        large = np.zeros((512, 512, 200), np.uint8)
        large[250, 250, :100] = 1
        nib.save(nib.Nifti1Image(large, np.eye(4)), tmp_path / part / "large.nii")
    entries.append({"image": "imagesTr/large.nii", "label": "labelsTr/large.nii"})
    (tmp_path / "dataset.json").write_text(json.dumps(described | {"training": entries}))
    problem = only(check(tmp_path))
    assert problem.case == "large"
    assert "512 x 512 x 200" in problem.rule


class TestValuesOfTheWholeSet:
    @pytest.mark.parametrize("values", [(0, 255, 64), (0, 2, 7)])
    def test_the_remedy_works_when_it_is_followed(
        self, cohort: Path, values: tuple[int, ...]
    ) -> None:
        table = np.array(values, np.uint8)
        given_labels(cohort, lambda _, array: table[array])
        problem = only(check(cohort))
        addition = problem.remedy.partition("Add ")[2].removesuffix(" to the dataset.json")
        described = json.loads((cohort / "dataset.json").read_text())
        described |= json.loads("{" + addition + "}")
        (cohort / "dataset.json").write_text(json.dumps(described))
        assert check(cohort).fit

    def test_values_near_whole_numbers_are_these(self, cohort: Path) -> None:
        before = check(cohort).facts["label_voxels"]
        given_labels(cohort, lambda _, array: (array * 0.9996).astype(np.float32))
        report = check(cohort)
        assert report.fit and report.facts["label_voxels"] == before

    def test_other_fractions_are_refused(self, cohort: Path) -> None:
        given_labels(cohort, lambda _, array: (array * 0.99).astype(np.float32))
        assert not check(cohort).fit

    def test_labels_that_are_all_empty(self, cohort: Path) -> None:
        given_labels(cohort, lambda _, array: np.zeros_like(array))
        assert "nothing to learn from" in only(check(cohort)).rule

    def test_one_case_cannot_be_trained(self, cohort: Path) -> None:
        describe(cohort, lambda d: d.update(training=d["training"][:1], folds=None))
        rules = [p.rule for p in check(cohort).problems if p.severity == "error"]
        assert any("no fold can be trained" in rule for rule in rules)

    def test_a_class_that_is_missing_from_folds(self, cohort: Path) -> None:
        given_labels(cohort, lambda n, array: array if n == 0 else np.minimum(array, 1))
        rules = [problem.rule for problem in check(cohort).problems]
        where = [k for k, fold in enumerate(load_manifest(cohort).folds) if FIRST not in fold]
        assert any(f"missing from fold {', '.join(map(str, where))}" in rule for rule in rules)
        assert any("alone, so that nothing is left to learn it" in rule for rule in rules)
