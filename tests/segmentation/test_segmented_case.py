"""A case is the same wherever its arrays lie, and takes bounded memory."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import get_args

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Compose, CropForegroundd, Orientationd, Spacingd

from medsegdiff.calibration.scaling import Scaling
from medsegdiff.core.storage import Storage, slabs
from medsegdiff.core.types import Fusion
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.transforms import LoadCased
from medsegdiff.segmentation import resampling
from medsegdiff.segmentation import segmented_case as segment
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
