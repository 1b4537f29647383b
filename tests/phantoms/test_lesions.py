from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from medsegdiff.core.errors import InputError
from medsegdiff.data.manifest import load_manifest
from medsegdiff.data.planes import cut_into_planes, with_class
from medsegdiff.data.transforms import LoadCased
from medsegdiff.phantoms.cohort import write_lesion_cohort


@pytest.mark.parametrize("dims", [2, 3])
def test_a_lesion_is_all_that_tells_twins_apart(dims: int, tmp_path: Path) -> None:
    manifest = load_manifest(write_lesion_cohort(tmp_path, cases=6, spatial_dims=dims, size=20))
    diseased = 0
    for case in manifest.cases:
        image, label = (nib.load(p[0]).get_fdata() for p in (case.images, case.labels))
        twin = nib.load(tmp_path / "truth" / f"{case.id}_healthy.nii.gz").get_fdata()
        assert image.ndim == dims
        away = ~binary_dilation(label > 0, iterations=5)  # the image is a little blurred
        assert np.array_equal(image[away], twin[away])
        if label.any():
            diseased += 1
            assert (np.abs(image - twin)[label > 0] > 0).mean() > 0.9
    assert diseased == 3


def test_a_case_depends_on_seed_and_number_alone(tmp_path: Path) -> None:
    for name, cases in (("few", 2), ("many", 4)):
        write_lesion_cohort(tmp_path / name, cases=cases, seed=3)
    one, two = (
        nib.load(tmp_path / n / "imagesTr" / "phantom_0001.nii.gz").get_fdata()
        for n in ("few", "many")
    )
    assert np.array_equal(one, two)


def test_the_share_of_the_diseased_is_kept(tmp_path: Path) -> None:
    file = write_lesion_cohort(tmp_path, cases=10, diseased=0.2)
    labels = [e["label"] for e in json.loads(file.read_text())["training"]]
    assert sum(nib.load(tmp_path / label).get_fdata().any() for label in labels) == 2
    with pytest.raises(InputError, match="share"):
        write_lesion_cohort(tmp_path, diseased=1.5)


def test_planes_are_classed_by_their_raters(tmp_path: Path) -> None:
    manifest = load_manifest(write_lesion_cohort(tmp_path, cases=6))
    planes = cut_into_planes(manifest.cases, LoadCased(2, 1, manifest.labels))
    classed = with_class(planes)
    assert [plane["diseased"] for plane in classed] == [
        int((plane["label"] > 0).any()) for plane in planes
    ]
    with pytest.raises(ValueError, match="healthy_up_to"):
        with_class(planes, healthy_up_to=1, diseased_from=1)
    with pytest.raises(InputError, match="no diseased plane"):
        with_class(planes[:1])
