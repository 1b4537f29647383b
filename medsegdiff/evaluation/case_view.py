"""A case as it is looked at: image, reference and what a segmentation left, on one grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.orientations import aff2axcodes
from numpy.typing import NDArray

from medsegdiff.core.types import Geometry
from medsegdiff.data.formats import is_photograph
from medsegdiff.data.manifest import Case, Manifest
from medsegdiff.data.predictions import foreground, majority, read_prediction, read_reference
from medsegdiff.data.transforms import read_channels


@dataclass(frozen=True, eq=False)
class CaseView:
    """The arrays of a case, on the input's own grid (*shape).

    Attributes:
        image: (*shape) the first channel in its own scale, or (*shape, 3) of a photograph.
        annotations: (M, *shape) label map of each rater.
        reference: (*shape) label map that more than half of them chose.
        seg: (*shape) label map of the ensemble.
        members: (N, *shape) label maps, or None.
        mean: value of a class -> (*shape) mean probability in [0, 1]; may be empty.
        variance: (*shape) summed over the classes, at least 0, or None.
        geometry: of the input; a volume of one slice is a plane.
        axes: directions in which the axes increase, such as "LPS"; "" of a photograph.
        stack: whether a volume is a stack of planes, judged one by one.
    """

    image: NDArray[np.float32]
    annotations: NDArray[np.uint8]
    reference: NDArray[np.uint8]
    seg: NDArray[np.uint8]
    members: NDArray[np.uint8] | None
    mean: dict[int, NDArray[np.float32]]
    variance: NDArray[np.float32] | None
    geometry: Geometry
    axes: str
    stack: bool

    @property
    def doubtful(self) -> NDArray[np.float32]:
        """(*shape) how much there is to see: 1 where mask and reference differ, and the variance.

        Where nothing differs anywhere, 1 in mask and reference.
        """
        score = (self.seg != self.reference).astype(np.float32)
        score += 0.0 if self.variance is None else self.variance
        inside = (self.seg > 0) | (self.reference > 0)
        return score if score.any() else inside.astype(np.float32)


def read_case_view(case: Case, manifest: Manifest, predictions: Path) -> CaseView:
    """Read the files of a case again, to show it.

    Args:
        case: with at least one label.
        manifest: that the case is from.
        predictions: folder of the segmented cases.

    Raises:
        InputError: a file is missing, broken, or of another grid.
    """
    classes = foreground(manifest)
    annotations, geometry = read_reference(case, manifest)
    prediction = read_prediction(predictions / case.id, case.id, classes, geometry)
    image, _ = read_channels(case.images, manifest.spatial_dims, len(manifest.channels))
    image = np.moveaxis(np.asarray(image), 0, -1).reshape(*geometry.shape, -1)
    photograph = is_photograph(case.images[0])
    variance = np.sum(list(prediction.variance.values()), axis=0) if prediction.variance else None
    return CaseView(
        image=image if photograph and image.shape[-1] == 3 else image[..., 0],
        annotations=annotations,
        reference=majority(annotations, classes),
        seg=prediction.seg,
        members=prediction.members,
        mean={v: prediction.mean[slug] for v, slug in classes.items() if slug in prediction.mean},
        variance=variance,
        geometry=geometry,
        axes="" if photograph else "".join(aff2axcodes(geometry.affine)[: len(geometry.shape)]),
        stack=manifest.spatial_dims == 2 and len(geometry.shape) == 3,
    )
