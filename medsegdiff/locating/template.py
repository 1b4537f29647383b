"""Places by registration: the scan is aligned with a template in which they are known.

A rigid search over directions, then an affine alignment from coarse to fine; both maximise Mattes'
mutual information (Mattes et al., IEEE TMI 2003), which takes any contrast.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from monai.data import MetaTensor
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import LPS_TO_RAS
from medsegdiff.locating.place import Located, Place

ICBM152 = "icbm152"
"""Name of the T1 template of ICBM152 (Fonov et al. 2011), which comes with nilearn."""

COARSE_MM, FINE_MM, TEMPLATE_MM = 8.0, 4.0, 2
DIRECTIONS = ((-30.0, -15.0, 0.0, 15.0, 30.0), (-20.0, 0.0, 20.0), (-20.0, 0.0, 20.0))
"""Angles in degrees about each axis from which the search begins."""
LIFTS_MM = (0.0, 40.0)
"""Distances upwards: a neck draws the centre of mass down."""
BEST = 3
"""Number of beginnings that are followed."""
SCALES = (0.7, 1.45)
"""Least and greatest stretch of a head to the template's that is believed."""
BINS = 32
LPS = LPS_TO_RAS[:3, :3]
"""From RAS+ to ITK's world, and back."""


class TemplateLocator:
    """Finds places that are known in a template.

    Args:
        places: Name of a place -> its centre in RAS+ mm of the template.
        size: Size of the places in mm, along their axes.
        template: ``icbm152``, or path of an image that has all of the body part.
        least_score: Mutual information in nats, at least that of a scan of this body part.
        lying: Angles in degrees about R, A and S, one after the other, by which the template's body
            part has to be turned to lie as in the images that the network learned from. The axes of
            the places are those of such images.
    """

    def __init__(
        self,
        places: Mapping[str, Sequence[float]],
        size: Sequence[float],
        template: str = ICBM152,
        least_score: float = 0.3,
        lying: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> None:
        self.places = {name: np.asarray(centre, float) for name, centre in places.items()}
        self.size, self.template, self.least_score = _point(size), template, least_score
        self.lying = Rotation.from_euler("xyz", lying, degrees=True).as_matrix()

    def __call__(self, scan: MetaTensor) -> Located:
        """The places in a scan.

        Args:
            scan: Image (C, X, Y, Z) with its affine, voxel index -> RAS+ mm; the first channel is
                looked at.

        Raises:
            InputError: the scan is not of this body part, or the template is missing.
        """
        started = time.perf_counter()
        values = scan[0].as_tensor().numpy()
        matrix, offset, score = align(read_template(self.template), values, np.asarray(scan.affine))
        stretch = np.linalg.svd(matrix, compute_uv=False)
        if score < self.least_score or stretch.min() < SCALES[0] or stretch.max() > SCALES[1]:
            rule = (
                f"does not look like the template {self.template} (mutual information {score:.2f}, "
                f"at least {self.least_score:g} is expected), so no place to segment was found"
            )
            remedy = (
                "Give it: --at X,Y,Z or --roi, in RAS+ mm; or take a bundle made for such scans"
            )
            raise InputError("scan", rule, remedy)
        axes = _rotation(matrix) @ self.lying.T
        found = tuple(
            Place(name, _point(matrix @ centre + offset), self.size, axes)
            for name, centre in self.places.items()
        )
        return Located(found, "template", score, time.perf_counter() - started)


def align(
    template: sitk.Image, values: NDArray[np.float32], affine: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Affine alignment of a template with a scan.

    Args:
        template: Template.
        values: Intensities (X, Y, Z) of the scan.
        affine: Its affine, voxel index -> RAS+ mm.

    Returns:
        Matrix (3, 3) and offset (3,) from the template's world to the scan's, both in RAS+ mm, and
        the mutual information in nats.

    Raises:
        InputError: the scan is too small to be compared with the template.
    """
    scan = to_itk(values, affine)
    coarse, fine = ((_shrunk(template, mm), _shrunk(scan, mm)) for mm in (COARSE_MM, FINE_MM))
    rigid = _best_rigid(*coarse)
    start = sitk.AffineTransform(3)
    start.SetCenter(rigid.GetCenter())
    start.SetMatrix(rigid.GetMatrix())
    start.SetTranslation(rigid.GetTranslation())
    method = _method(start, share=0.3)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 5e-3, 80, relaxationFactor=0.6)
    method.Execute(*fine)
    matrix = np.array(start.GetMatrix()).reshape(3, 3)
    offset = np.array(start.TransformPoint((0.0, 0.0, 0.0)))
    return LPS @ matrix @ LPS, LPS @ offset, -float(method.GetMetricValue())


def _best_rigid(template: sitk.Image, scan: sitk.Image) -> sitk.Euler3DTransform:
    """The best of the rigid alignments that begin at the most promising directions."""
    centre, moved = _centre_of_mass(template), _centre_of_mass(scan)
    tried: list[tuple[float, int, sitk.Euler3DTransform]] = []
    for *angles, lift in product(*DIRECTIONS, LIFTS_MM):
        start = sitk.Euler3DTransform()
        start.SetCenter(centre.tolist())
        start.SetRotation(*np.deg2rad(angles).tolist())
        start.SetTranslation((moved - centre + [0.0, 0.0, lift]).tolist())
        try:
            value = _method(start, share=0.3).MetricEvaluate(template, scan)
        except RuntimeError:  # nothing of the scan is where the template is
            continue
        tried.append((value, len(tried), start))
    if not tried:
        rule = "is too small to be compared with a template"
        raise InputError("scan", rule, "Give the place: --at X,Y,Z or --roi, in RAS+ mm")
    followed = []
    for _, number, start in sorted(tried)[:BEST]:
        method = _method(start, share=0.5)
        method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-2, 60, relaxationFactor=0.6)
        method.Execute(template, scan)
        followed.append((method.GetMetricValue(), number, start))
    return min(followed)[2]


def _method(transform: sitk.Transform, share: float) -> sitk.ImageRegistrationMethod:
    """Mutual information at a share of the voxels; the transform itself is changed."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(share, seed=1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    return method


def to_itk(values: NDArray[np.float32], affine: NDArray[np.float64]) -> sitk.Image:
    """An image of ITK, of intensities (X, Y, Z) with an affine to RAS+ mm."""
    turned = LPS @ affine[:3, :3]
    spacing = np.linalg.norm(turned, axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T.astype(np.float32)))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((turned / spacing).ravel().tolist())
    image.SetOrigin((LPS @ affine[:3, 3]).tolist())
    return image


def _shrunk(image: sitk.Image, mm: float) -> sitk.Image:
    """Means over blocks of voxels of about so many mm."""
    factors = [max(1, round(mm / spacing)) for spacing in image.GetSpacing()]
    factors = [min(f, size) for f, size in zip(factors, image.GetSize(), strict=True)]
    return sitk.BinShrink(image, factors) if max(factors) > 1 else image


def _centre_of_mass(image: sitk.Image) -> NDArray[np.float64]:
    """Centre of the intensities above the darkest twentieth, in ITK's world."""
    values = sitk.GetArrayFromImage(image).astype(np.float64)
    low, high = np.percentile(values, (5.0, 99.0))
    weights = np.clip(values - low, 0.0, max(high - low, 1e-6)) + 1e-9
    sums = [weights.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in (2, 1, 0)]
    index = [float((np.arange(len(s)) * s).sum() / s.sum()) for s in sums]
    return np.array(image.TransformContinuousIndexToPhysicalPoint(index))


def _rotation(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation nearest to a matrix (3, 3)."""
    left, _, right = np.linalg.svd(matrix)
    return np.asarray(left @ np.diag([1.0, 1.0, np.linalg.det(left @ right)]) @ right)


def _point(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z


@cache
def read_template(name: str) -> sitk.Image:
    """A template by its name or path.

    Raises:
        InputError: its file is missing.
    """
    if name == ICBM152:
        from nilearn.datasets import load_mni152_template

        image = load_mni152_template(resolution=TEMPLATE_MM)
    else:
        try:
            image = nib.load(name)
        except (OSError, nib.filebasedimages.ImageFileError) as error:
            rule = "cannot be read as the template of a locator"
            raise InputError(name, rule, "Correct `template` in the bundle's inference") from error
    return to_itk(np.asarray(image.dataobj, dtype=np.float32), image.affine)
