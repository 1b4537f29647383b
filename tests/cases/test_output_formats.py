"""One table of output formats: what the command line, the check and the clean-up read."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medsegdiff.cases.case_files import ENDINGS, remove_case
from medsegdiff.cases.output_formats import (
    OUTPUT_FORMATS,
    Output,
    check_formats,
    check_installed,
    chosen_formats,
)
from medsegdiff.cli.options import FORMATS_HELP, parse_formats
from medsegdiff.core import errors
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.core.types import Geometry
from medsegdiff.data.case_input import CaseInput
from medsegdiff.segmentation.segmented_case import SegmentedCase
from medsegdiff.writers.segments import Algorithm, Code, Segment

ORGAN = Code("123037004", "SCT", "Anatomical Structure")
ROOT = Path(__file__).resolve().parents[2]
SEGMENTS = [Segment(1, "a", (1.0, 0.0, 0.0), ORGAN, ORGAN)]


def segmented() -> SegmentedCase:
    mask = np.zeros((4, 5, 6), np.uint8)
    mask[1:3, 1:4, 2:5] = 1
    mean = np.stack([mask == 0, mask == 1]).astype(np.float32)
    return SegmentedCase(
        geometry=Geometry(mask.shape, np.eye(4)),
        image=mean[:1],
        mask=mask,
        mean=mean,
        variance=np.zeros_like(mean),
        entropy=np.zeros_like(mean[0]),
        anchor=None,
        members=mask[None],
        seconds={},
        windows={},
    )


@pytest.mark.parametrize("one", OUTPUT_FORMATS.values(), ids=lambda one: one.name)
def test_a_format_leaves_the_files_that_it_names(one: Output, tmp_path: Path) -> None:
    """Those made of DICOM alone are held to this where there is a series."""
    assert set(one.files) < set(ENDINGS)
    if one.dicom_only:
        with pytest.raises(InputError, match="DICOM"):
            one.write(segmented(), "x", tmp_path, SEGMENTS, Algorithm("b", "1"), {})
        return
    one.write(segmented(), "x", tmp_path, SEGMENTS, Algorithm("b", "1"), {})
    for pattern in one.files:
        assert list(tmp_path.glob(f"x{pattern}")), pattern
    remove_case("x", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_maps_tell_viewers_their_range_and_masks_do_not(tmp_path: Path) -> None:
    """Of a probability, its variance, and the entropy of two classes in nats."""
    OUTPUT_FORMATS["nifti"].write(segmented(), "x", tmp_path, SEGMENTS, Algorithm("b", "1"), {})
    expected = {"mean_a": 1.0, "variance_a": 0.25, "entropy": np.log(2.0), "seg": 0.0}
    for name, highest in expected.items():
        header = nib.load(tmp_path / f"x_{name}.nii.gz").header
        assert header["cal_min"] == 0.0
        assert header["cal_max"] == pytest.approx(highest, abs=2e-3), name


def test_names_are_checked_wherever_they_come_from() -> None:
    given = CaseInput("a", ("a.nii.gz",))
    for name, one in OUTPUT_FORMATS.items():
        assert name == one.name and name in FORMATS_HELP and parse_formats(name) == [name]
        if one.dicom_only:
            with pytest.raises(InputError, match="refers to the DICOM images"):
                check_formats(given, [name])
        else:
            check_formats(given, [name])
    with pytest.raises(UsageError, match="'nifty' is not a format"):
        check_formats(given, ["nifty"])
    with pytest.raises(UsageError, match="Did you mean nifti"):
        parse_formats("nifty")


def test_a_format_whose_package_is_missing_is_refused_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    check_installed(["nifti"])
    for one in OUTPUT_FORMATS.values():
        if one.needs:
            package, extra = one.needs
            listed = project["optional-dependencies"][extra]
            assert any(line.startswith(package) for line in listed)
            with pytest.raises(InputError, match=rf"{package}, which.*medsegdiff\[{extra}\]"):
                check_installed(["nifti", one.name])


def test_what_can_fail_is_written_first() -> None:
    chosen = chosen_formats(["nifti", "dicom-seg", "nrrd"])
    assert [one.dicom_only for one in chosen] == sorted(
        (one.dicom_only for one in chosen), reverse=True
    )


def test_the_table_loads_nothing_heavy() -> None:
    """Since the command line's help is made from it."""
    code = (
        "import sys, medsegdiff.cases.output_formats as _;"
        "print([n for n in ('torch', 'monai', 'nibabel', 'pydicom') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
