"""Write a generated cohort, its simulated raters and its true probabilities.

The images and annotations are made in :mod:`medsegdiff.phantoms.anatomy`.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import LPS_TO_RAS
from medsegdiff.data.manifest import class_slug
from medsegdiff.phantoms.anatomy import (
    Arrangement,
    Raters,
    class_probabilities,
    draw_annotation,
    make_anatomy,
    make_image,
)
from medsegdiff.phantoms.lesions import draw_lesions

_MAY_BE_EMPTY = (
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
    "PatientPosition",
    "Laterality",
    "ScanOptions",
    "EchoTrainLength",
)


def write_cohort(
    folder: str | Path,
    *,
    cases: int = 10,
    spatial_dims: int = 3,
    classes: int = 2,
    raters: int = 1,
    seed: int = 0,
    channels: int = 1,
    size: int = 32,
    arrangement: Arrangement = "adjacent",
    disagreement: Raters | None = None,
    stacked: bool = False,
) -> Path:
    """Write images, annotations and true probabilities, and describe them in a ``dataset.json``.

    The files are ``imagesTr/<case>.nii.gz``, ``labelsTr/<case>.nii.gz`` and
    ``truth/<case>_probability_<class>.nii.gz``; a case depends on the settings, the seed and its
    number alone.

    Args:
        folder: Folder of the files; it is created if it is missing.
        cases: Number of images, each of its own patient.
        spatial_dims: Number of spatial axes, 2 or 3.
        classes: Number of structures, without the background.
        raters: Number of annotations of each case.
        seed: Seed of all randomness.
        channels: Number of images of different contrast per case, in one file each.
        size: Number of voxels along an axis, plus or minus an eighth.
        arrangement: Arrangement of the structures.
        disagreement: Model of the raters' disagreement; None: a typical one.
        stacked: Whether several annotations share one file, in its last axis; otherwise each has
            its own file.

    Returns:
        Path of the ``dataset.json``.

    Raises:
        InputError: spatial_dims is neither 2 nor 3, a number is not positive, or size below 8.
    """
    if spatial_dims not in (2, 3) or min(cases, classes, raters, channels) < 1 or size < 8:
        rule = "needs 2 or 3 dimensions, every number at least 1, and a size of 8 or more"
        raise InputError("phantom", rule, "Correct the arguments")
    folder = Path(folder)
    model = disagreement or Raters()
    names = [f"Structure {k}" for k in range(1, classes + 1)]
    stacked = stacked and raters > 1
    entries = []
    for number in range(cases):
        rng = np.random.default_rng([seed, number])
        affine, levels = make_anatomy(rng, spatial_dims, classes, size, arrangement)
        images = [make_image(levels, channel, rng) for channel in range(channels)]
        annotations = np.stack([draw_annotation(levels, model, rng) for _ in range(raters)])
        truth = class_probabilities(levels, model)
        case = f"phantom_{number:03d}"
        for name, probability in zip(names, truth[1:], strict=True):
            file = folder / "truth" / f"{case}_probability_{class_slug(name)}.nii.gz"
            _save(file, probability.astype(np.float32), affine)
        entries.append(_save_case(folder, case, images, annotations, affine, stacked))
    described = _described(f"phantom{spatial_dims}d", spatial_dims, names, entries)
    described["description"] = (
        "Generated volumes with simulated raters; true probabilities in truth/"
    )
    described["modality"] = {str(channel): "MRI" for channel in range(channels)}
    described["raters"] = raters
    return _save_description(folder, described)


def write_lesion_cohort(
    folder: str | Path,
    *,
    cases: int = 10,
    spatial_dims: int = 2,
    seed: int = 0,
    size: int = 32,
    diseased: float = 0.5,
) -> Path:
    """Write healthy and diseased images, the lesions' masks, and how each would look healthy.

    The files are ``imagesTr/<case>.nii.gz``, ``labelsTr/<case>.nii.gz`` (1 in lesions, so all 0 for
    a healthy case) and ``truth/<case>_healthy.nii.gz``: the same image, to the last bit of its
    noise, without the lesions. A case depends on the settings, the seed and its number alone.

    Args:
        folder: Folder of the files; it is created if it is missing.
        cases: Number of images, each of its own patient.
        spatial_dims: Number of spatial axes, 2 or 3.
        seed: Seed of all randomness.
        size: Number of voxels along an axis, plus or minus an eighth.
        diseased: Share of the cases that have lesions, in [0, 1].

    Returns:
        Path of the ``dataset.json``.

    Raises:
        InputError: an argument is out of its range.
    """
    if spatial_dims not in (2, 3) or cases < 1 or size < 16 or not 0.0 <= diseased <= 1.0:
        rule = "needs 2 or 3 dimensions, 1 case, a size of 16 or more and a share in [0, 1]"
        raise InputError("phantom", rule, "Correct the arguments")
    folder, entries = Path(folder), []
    for number in range(cases):
        rng = np.random.default_rng([seed, number])
        affine, levels = make_anatomy(rng, spatial_dims, 2, size, "adjacent")
        spacing = np.linalg.norm(affine[:3, :spatial_dims], axis=0)
        mask, factor = draw_lesions(levels, spacing, rng)
        if int((number + 1) * diseased) == int(number * diseased):
            mask, factor = np.zeros_like(mask), np.ones_like(factor)
        healthy = make_image(levels, 0, copy.deepcopy(rng))
        image = make_image(levels, 0, rng, factor)
        case = f"phantom_{number:04d}"
        _save(folder / "truth" / f"{case}_healthy.nii.gz", healthy, affine)
        marked = mask[None].astype(np.uint8)
        entries.append(_save_case(folder, case, [image], marked, affine, stacked=False))
    described = _described(f"lesions{spatial_dims}d", spatial_dims, ["Lesion"], entries)
    described["description"] = "Generated images, some with lesions; healthy twins in truth/"
    return _save_description(folder, described)


def _described(
    name: str, spatial_dims: int, classes: list[str], entries: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "name": name,
        "description": "",
        "licence": "CC0-1.0",
        "reference": "generated",
        "tensorImageSize": f"{spatial_dims}D",
        "modality": {"0": "MRI"},
        "labels": dict(enumerate(["background", *classes])),
        "raters": 1,
        "training": entries,
    }


def _save_description(folder: Path, described: dict[str, Any]) -> Path:
    file = folder / "dataset.json"
    file.write_text(json.dumps(described, indent=1), encoding="utf-8")
    return file


def _save_case(
    folder: Path,
    case: str,
    images: list[NDArray[np.int16]],
    annotations: NDArray[np.uint8],
    affine: NDArray[np.float64],
    stacked: bool,
) -> dict[str, Any]:
    """Write the files of a case; returns its entry in the listing."""
    image = [f"imagesTr/{case}.nii.gz"]
    if len(images) > 1:
        image = [f"imagesTr/{case}_{channel:04d}.nii.gz" for channel in range(len(images))]
    label = [f"labelsTr/{case}.nii.gz"]
    if stacked:
        masks = [np.moveaxis(annotations, 0, -1)]
    else:
        masks = list(annotations)
        if len(masks) > 1:
            label = [f"labelsTr/{case}_rater{rater}.nii.gz" for rater in range(len(masks))]
    arrays: list[NDArray[Any]] = [*images, *masks]
    for file, array in zip([*image, *label], arrays, strict=True):
        _save(folder / file, array, affine)
    short = [paths[0] if len(paths) == 1 else paths for paths in (image, label)]
    return {"image": short[0], "label": short[1], "patient": case}


def _save(file: Path, array: NDArray[Any], affine: NDArray[np.float64]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nib.save(image, file)


def write_dicom_series(
    volume: NDArray[np.integer[Any]],
    affine: NDArray[np.float64],
    folder: str | Path,
    *,
    number: int = 1,
    description: str = "phantom",
    patient: str = "PHANTOM",
    seed: int = 0,
) -> list[Path]:
    """Write a volume as an MR series, one file a slice; identifiers depend on the arguments alone.

    Args:
        volume: Volume (columns, rows, slices) of whole numbers in [0, 65535].
        affine: Affine (4, 4), voxel -> RAS+ mm, axes at right angles.
        folder: Folder of the files; it is created if it is missing.
        number: SeriesNumber.
        description: SeriesDescription.
        patient: PatientID; with the seed it fixes the study's identifier.
        seed: Seed of the identifiers, different for each cohort.

    Returns:
        The files, along the last axis.

    Raises:
        InputError: values or affine that the format cannot hold.
    """
    if volume.ndim != 3 or volume.dtype.kind not in "ui" or volume.min() < 0:
        rule = "a volume of whole numbers that are not negative is needed"
        raise InputError("DICOM", rule, "Scale and round it")
    if volume.max() > np.iinfo(np.uint16).max:
        raise InputError("DICOM", "values above 65535 do not fit", "Scale the volume")
    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    axes = lps[:3, :3] / spacing
    if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-4):
        raise InputError("DICOM", "the affine is sheared", "Resample the volume")
    identity = [patient, str(seed), str(number), description]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for k in range(volume.shape[2]):
        header = _mr_header(identity, k, axes, spacing)
        header.PatientID, header.PatientName = patient, patient
        header.SeriesNumber, header.SeriesDescription = number, description
        header.Rows, header.Columns = volume.shape[1], volume.shape[0]
        header.ImagePositionPatient = _decimals(lps[:3, 2] * k + lps[:3, 3])
        header.PixelData = volume[:, :, k].T.astype("<u2").tobytes()
        files.append(folder / f"{k:04d}.dcm")
        header.save_as(files[-1], enforce_file_format=True)
    return files


def _mr_header(
    identity: list[str], k: int, axes: NDArray[np.float64], spacing: NDArray[np.float64]
) -> Any:
    """The header that an MR Image (PS3.3, A.4) must have, without position, size and pixels."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    def uid(*parts: str) -> Any:
        return generate_uid(entropy_srcs=["medsegdiff", *parts])

    header = Dataset()
    for name in _MAY_BE_EMPTY:
        setattr(header, name, None)
    header.SOPClassUID, header.SOPInstanceUID = MRImageStorage, uid("image", *identity, str(k))
    header.StudyInstanceUID = uid("study", *identity[:2])
    header.SeriesInstanceUID = uid("series", *identity)
    header.FrameOfReferenceUID = uid("frame", *identity[:2])
    header.Modality, header.Manufacturer = "MR", "medsegdiff"
    header.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    header.ScanningSequence, header.SequenceVariant, header.MRAcquisitionType = "GR", "NONE", "3D"
    header.RepetitionTime, header.EchoTime = 8.0, 3.0
    header.InstanceNumber = k + 1
    header.ImageOrientationPatient = _decimals([*axes[:, 0], *axes[:, 1]])
    header.PixelSpacing = _decimals([spacing[1], spacing[0]])  # between rows, between columns
    header.SliceThickness = header.SpacingBetweenSlices = _decimals([spacing[2]])[0]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
    header.PixelRepresentation = 0
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = MRImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    return header


def _decimals(values: Any) -> list[Any]:
    from pydicom.valuerep import DSfloat

    return [DSfloat(float(value), auto_format=True) for value in values]
