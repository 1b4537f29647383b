"""A case is the same wherever its arrays lie, and takes bounded memory."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, get_args

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, Orientationd, Spacingd

from medsegdiff.calibration.scaling import Scaling
from medsegdiff.core.storage import Storage, slabs
from medsegdiff.core.types import Fusion, Geometry
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.transforms import LoadCased
from medsegdiff.segmentation import resampling
from medsegdiff.segmentation import segmented_case as segment
from medsegdiff.segmentation.ensemble import Ensemble
from medsegdiff.segmentation.resampling import resample_by_slabs
from medsegdiff.segmentation.segmented_case import SegmentedCase, segment_case
from medsegdiff.segmentation.sliding_window import EnsembleInferer
from tests.conftest import MakeNifti
from tests.tiny import tiny_segmenter

ORIENT = Orientationd("image", "RAS", labels=None)
CHAINS = {
    "nothing to undo": [],
    "turned": [ORIENT],
    "resampled": [ORIENT, Spacingd("image", (1.0, 1.2, 0.9))],
    "cropped": [ORIENT, CropForegroundd("image", "image", select_fn=lambda x: x > 130)],
}
AFFINE = np.array([[0, -0.8, 0, 3], [1.1, 0, 0, -4], [0, 0, 1.3, 5], [0, 0, 0, 1.0]])


def segmented(path: Path, chain: str, dims: int, storage: Storage, rule: Fusion) -> SegmentedCase:
    network = tiny_segmenter(dims)
    preprocessing = Compose([LoadCased(spatial_dims=dims), *CHAINS[chain]])
    inferer = EnsembleInferer([8] * dims, members=3, steps=1, fusion=rule, empty_up_to=90.0)
    scaling = Scaling((1.5, 1.2, 1.0), (0.0, 0.2, -0.1))
    resample_by_slabs(preprocessing)
    return segment_case(CaseInput("a", (path,)), network, preprocessing, inferer, scaling, storage)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    ("chain", "rule"),
    [*((chain, "mean") for chain in CHAINS), *(("resampled", r) for r in get_args(Fusion)[1:])],
)
def test_disk_and_slabs_change_nothing(
    rule: Fusion,
    chain: str,
    dims: int,
    make_nifti: MakeNifti,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make_nifti(shape=(14, 11, 6), affine=AFFINE)
    expected = segmented(path, chain, dims, Storage(), rule)
    monkeypatch.setattr(segment, "slabs", partial(slabs, voxels=100))
    monkeypatch.setattr(segment, "VALUES_AT_ONCE", 1)
    monkeypatch.setattr(resampling, "SLAB", 100)
    found = segmented(path, chain, dims, Storage(tmp_path, in_memory=0), rule)
    assert found.windows == expected.windows and sum(found.windows.values()) > 1
    for name in (f.name for f in fields(found)):
        ours, other = getattr(found, name), getattr(expected, name)
        if isinstance(other, np.ndarray):
            assert ours.dtype == other.dtype
            np.testing.assert_allclose(ours, other, atol=1e-6, err_msg=name)


MEASURE = """
import resource, sys
from pathlib import Path
from monai.transforms import Compose, Orientationd
from medsegdiff.data.transforms import LoadCased
from medsegdiff.data.case_input import CaseInput
from medsegdiff.segmentation.segmented_case import segment_case
from medsegdiff.segmentation.sliding_window import EnsembleInferer
from medsegdiff.core.storage import Storage
from tests.tiny import tiny_segmenter

network = tiny_segmenter(3)
chain = Compose([LoadCased(), Orientationd("image", "RAS", labels=None)])
inferer = EnsembleInferer([32] * 3, members=8, steps=1)
for name in ("small", "large"):
    path = Path(sys.argv[1]) / f"{name}.nii"
    case = segment_case(CaseInput(name, (path,)), network, chain, inferer,
                        storage=Storage(sys.argv[1], 2**20))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, case.windows["run"])
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory otherwise")
def test_memory_does_not_grow_by_classes_times_members(tmp_path: Path) -> None:
    """A map is 24 MiB here: 8 members x 3 classes of them would be 576, and copies come on top."""
    for name, side in (("small", 32), ("large", 184)):
        values = np.zeros((side,) * 3, dtype=np.int16)
        values[:30, :30, :30] = 100
        nib.save(nib.Nifti1Image(values, np.diag([-1.0, -1.0, 1.0, 1.0])), tmp_path / f"{name}.nii")
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    told = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    (small, one), (large, few) = (map(int, line.split()) for line in told.splitlines()[-2:])
    assert one == 1 and 1 <= few <= 8
    assert large - small < 400, told


class GivenInferer:
    """An inferer that answers with a given ensemble, and keeps what it was asked."""

    def __init__(self, ensemble: Ensemble, fusion: Fusion = "mean") -> None:
        self.given, self.fusion, self.asked = ensemble, fusion, []  # type: ignore[var-annotated]

    def ensemble(self, *asked: Any) -> Ensemble:
        self.asked = list(asked)
        return self.given


def a_case(
    fusion: Fusion = "mean", scaling: Scaling | None = None, **changed: Any
) -> SegmentedCase:
    """Three voxels of two classes, two members, on the image's own grid."""
    mean = torch.tensor([[[0.7, 0.2, 1.002]], [[0.2, 0.8, -0.002]]])
    given = {
        "mean": mean,
        "variance": torch.full((2, 1, 3), 0.2).index_fill_(2, torch.tensor([2]), 0.3),
        "anchor": torch.tensor([[[0.1, 0.9, 0.0]], [[0.9, 0.1, 0.0]]]),
        "labels": torch.tensor([[[0, 1, 1]], [[1, 1, 1]]], dtype=torch.uint8),
        "seconds": {"encode": 1.0, "sample": 2.0},
        "windows": {"run": 5},
        **changed,
    }
    image = MetaTensor(torch.arange(3.0).reshape(1, 1, 3), meta={"spatial_shape": (1, 3)})
    item = {"image": image, "geometry": Geometry((1, 3), np.eye(4))}
    inferer: Any = GivenInferer(Ensemble(**given), fusion)
    network, told = torch.nn.Identity(), []
    progress = lambda *at: told.append(at)  # noqa: E731
    storage = Storage()
    found = segment.segment_item(
        item, "name", network, Compose([]), inferer, scaling, storage, progress, 4.0
    )
    plain, *rest = inferer.asked
    assert torch.equal(plain, image.as_tensor()) and rest == [network, "name", storage, progress]
    assert found.storage is storage and found.geometry is item["geometry"]
    return found


def test_what_resampling_left_is_repaired() -> None:
    found = a_case()
    # a tenth is lacking, which is background; sums and limits are kept
    np.testing.assert_allclose(found.mean[:, 0], [[0.8, 0.2, 1.0], [0.2, 0.8, 0.0]], atol=1e-6)
    np.testing.assert_allclose(found.variance[:, 0], [[0.2, 0.2, 0.25]] * 2)
    assert found.mask.tolist() == [[0, 1, 0]]
    assert found.anchor is not None and found.anchor.tolist() == [[1, 0, 0]]  # cropped: background
    entropy = -(0.8 * np.log(0.8) + 0.2 * np.log(0.2))
    np.testing.assert_allclose(found.entropy, [[entropy, entropy, 0.0]], rtol=1e-5)
    assert found.members.tolist() == [[[0, 1, 1]], [[1, 1, 1]]]
    assert found.image.tolist() == [[[0.0, 1.0, 2.0]]]
    assert found.seconds == {"load": 4.0, "encode": 1.0, "sample": 2.0}
    assert found.windows == {"run": 5} and found.calibration_shift == 0.0
    (features,) = found.features
    assert set(features) == {"intensity", "ensemble"} and found.places == {}


def test_the_scaling_comes_before_the_mask_and_its_shift_is_told() -> None:
    scaling = Scaling((1.0, 1.0), (0.0, 3.0))
    found, raw = a_case(scaling=scaling), a_case()
    np.testing.assert_allclose(found.mean, scaling(raw.mean), rtol=1e-6)
    assert found.mask.tolist() == [[1, 1, 0]]
    moved = np.abs(found.mean[0] - raw.mean[0]).sum()
    assert found.calibration_shift == pytest.approx(moved / (1.0 + 0.2 + 0.8), rel=1e-5)
    np.testing.assert_array_equal(found.variance, raw.variance)


@pytest.mark.parametrize("fusion", ["majority", "staple"])
def test_members_decide_by_the_rule(fusion: Fusion) -> None:
    assert a_case(fusion).mask.tolist() == [[0, 1, 1]]


def test_scores_of_the_steps_decide_by_their_rule() -> None:
    steps = torch.tensor([[[0.1, 0.9, 0.2]], [[0.9, 0.1, 0.8]]])
    found = a_case("step_uncertainty", by_steps=steps)
    assert found.mask.tolist() == [[1, 0, 1]]


def test_without_an_anchor_there_is_none() -> None:
    assert a_case(anchor=None).anchor is None


def test_an_item_has_the_spacing_that_was_given() -> None:
    paths = (Path("a.png"), Path("b.png"))
    assert segment.case_item(CaseInput("x", paths)) == {"case": "x", "image": list(paths)}
    found = segment.case_item(CaseInput("x", paths, spacing=(0.5, 0.7)))
    assert found == {"case": "x", "image": list(paths), "spacing": (0.5, 0.7)}
