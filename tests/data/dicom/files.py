"""Series as scanners and archives leave them, made from the phantom: what is read, what is refused.

Each maker writes files to a folder. Those in ``READABLE`` are one volume that other raters know.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, generate_uid
from scipy.spatial.transform import Rotation

from medsegdiff.phantoms.anatomy import make_anatomy, make_image
from medsegdiff.phantoms.cohort import write_dicom_series

Header = Any
Change = Callable[[Header], object]

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [10, 25, -15], degrees=True).as_matrix() * [1, 2, 3]
OBLIQUE[:3, 3] = -30.5, 12.25, 40
RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # to and from DICOM's LPS
PLANES = {  # direction of rows and columns in LPS, as scanners have them
    "axial": ([1, 0, 0], [0, 1, 0]),
    "sagittal": ([0, 1, 0], [0, 0, -1]),
    "coronal": ([1, 0, 0], [0, 0, -1]),
}


def phantom_volume(seed: int = 0, size: int = 16) -> np.ndarray:
    """A generated image (columns, rows, slices), of three different sizes, uint16."""
    rng = np.random.default_rng(seed)
    _, levels = make_anatomy(rng, 3, 2, size, "adjacent")
    image = make_image(levels, 0, rng)
    image = image - image.min()
    return image[:14, :12, :9].astype(np.uint16)


def plane_affine(plane: str) -> np.ndarray:
    """A grid of 1.5 x 2 x 3 mm in one of the body's planes, voxel -> RAS+ mm."""
    row, column = (np.array(axis, float) for axis in PLANES[plane])
    lps = np.eye(4)
    lps[:3, :3] = np.stack([row, column, np.cross(row, column)], axis=1) * [1.5, 2, 3]
    lps[:3, 3] = -20, 15.5, 7
    return np.asarray(RAS @ lps)


def made(folder: Path, number: int = 1, affine: np.ndarray = OBLIQUE, **settings: Any) -> Path:
    """The phantom as an MR series of nine slices."""
    write_dicom_series(phantom_volume(), affine, folder, number=number, **settings)
    return folder


def edit(file: Path, change: Change) -> None:
    header = pydicom.dcmread(file)
    change(header)
    header.save_as(file)


def edit_all(folder: Path, change: Change) -> Path:
    for file in sorted(folder.iterdir()):
        edit(file, change)
    return folder


def add(folder: Path, change: Change, files: Sequence[Path] | None = None) -> None:
    """Further images of the same series: copies with identifiers of their own, changed."""
    for file in files or sorted(folder.iterdir()):
        header = pydicom.dcmread(file)
        uid = generate_uid(entropy_srcs=[header.SOPInstanceUID, str(len(list(folder.iterdir())))])
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = uid
        change(header)
        header.save_as(folder / f"{uid}")


def each(*changes: Change) -> Change:
    def change(header: Header) -> None:
        for one in changes:
            one(header)

    return change


def damage(file: Path, keyword: str) -> None:
    """Make a field's kind ``U?``, which no rater knows."""
    tag = pydicom.tag.Tag(keyword)
    start = struct.pack("<HH", tag.group, tag.element)
    kind = re.escape(start) + rb"[A-Z]{2}"
    content, count = re.subn(kind, lambda _: start + b"U?", file.read_bytes())
    assert count == 1
    file.write_bytes(content)


def stored(header: Header) -> np.ndarray:
    """The values in a file (rows, columns)."""
    kind = "<i2" if header.PixelRepresentation else "<u2"
    return np.frombuffer(header.PixelData, kind).reshape(header.Rows, header.Columns)


def set_type(header: Header, sop_class: str, modality: str = "MR") -> None:
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    header.Modality = modality


def as_ct(folder: Path) -> Path:
    """Signed values with the usual intercept."""

    def change(header: Header) -> None:
        set_type(header, pydicom.uid.CTImageStorage, "CT")
        header.PixelData = (stored(header).astype(np.int16) - 500).tobytes()
        header.PixelRepresentation, header.KVP = 1, 120
        header.RescaleSlope, header.RescaleIntercept, header.RescaleType = 1, -1024, "HU"

    return edit_all(folder, change)


def halve(header: Header) -> None:
    header.PixelData = (stored(header) // 2).tobytes()


def rescale_by_slice(header: Header) -> None:
    header.RescaleSlope = f"{0.5 + 0.125 * header.InstanceNumber}"
    header.RescaleIntercept = -10 * header.InstanceNumber


def invert(header: Header) -> None:
    header.PhotometricInterpretation = "MONOCHROME1"


def twelve_bits_of_sixteen(header: Header) -> None:
    """Signed, with nothing in the upper bits, not even the sign."""
    values = stored(header).astype(np.int16) // 2 - 300
    header.PixelData = (values & 0x0FFF).astype("<u2").tobytes()
    header.PixelRepresentation, header.BitsStored, header.HighBit = 1, 12, 11


def eight_bits(header: Header) -> None:
    values = (stored(header).astype(float) / 16).astype(np.uint8)
    header.PixelData = values.tobytes()
    header.BitsAllocated, header.BitsStored, header.HighBit = 8, 8, 7


def lacking(header: Header) -> None:
    """What a derived series leaves out."""
    for tag in "SliceThickness SpacingBetweenSlices EchoTime RepetitionTime Manufacturer".split():
        delattr(header, tag)
    header.SeriesNumber = None
    header.ImageType = ["DERIVED", "SECONDARY"]


def tilt(folder: Path, millimetres: float = 1.0) -> Path:
    """Shift each slice against the one before, along its columns, as a tilted gantry does."""

    def change(header: Header) -> None:
        along = np.array(header.ImageOrientationPatient[3:], float)
        shift = along * millimetres * (header.InstanceNumber - 1)
        move(header, shift)
        degrees = np.degrees(np.arctan2(millimetres, float(header.SliceThickness)))
        header.GantryDetectorTilt = f"{degrees:.6f}"

    return edit_all(folder, change)


def move(header: Header, by: np.ndarray) -> None:
    position = np.array(header.ImagePositionPatient, float) + by
    header.ImagePositionPatient = [f"{value:.10g}" for value in position]


def move_along_normal(header: Header, millimetres: float) -> None:
    axes = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
    move(header, np.cross(*axes) * millimetres)


def compress(folder: Path, syntax: str) -> Path:
    """By GDCM's name of the transfer syntax."""
    import gdcm

    for file in folder.iterdir():
        rater = gdcm.ImageReader()
        rater.SetFileName(str(file))
        assert rater.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(rater.GetImage())
        assert change.Change(), syntax
        writer = gdcm.ImageWriter()
        writer.SetFile(rater.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(file))
        assert writer.Write()
    return folder


def dataset(**fields: Any) -> Dataset:
    made = Dataset()
    for name, value in fields.items():
        setattr(made, name, Items([value]) if isinstance(value, Dataset) else value)
    return made


def enhance(
    folder: Path,
    *,
    ct: bool = False,
    plain: bool = False,
    echoes: Sequence[float] = (),
    **fields: Any,
) -> Path:
    """One enhanced multi-frame file instead of the series in the folder.

    Its frames do not run along the normal, and each has a slope and intercept of its own.

    Args:
        folder: of single images.
        ct: Enhanced CT rather than MR.
        plain: frames run along the normal, with one slope and intercept.
        echoes: echo times; each is a volume, the n-th with values n times as high.
        fields: to set in the end.
    """
    headers = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    first = headers[0]
    shuffled = headers if plain else headers[::2] + headers[1::2]
    frames = [(header, n) for n in range(len(echoes) or 1) for header in shuffled]
    items = [_groups(header, n, echoes, plain) for header, n in frames]
    pixels = [stored(header) * (n + 1) for header, n in frames]
    for file in folder.iterdir():
        file.unlink()
    kind = pydicom.uid.EnhancedCTImageStorage if ct else pydicom.uid.EnhancedMRImageStorage
    set_type(first, kind, "CT" if ct else "MR")
    first.PixelData = np.stack(pixels).astype(pixels[0].dtype).tobytes()
    first.NumberOfFrames = len(frames)
    first.SharedFunctionalGroupsSequence = Items([
        dataset(
            PixelMeasuresSequence=dataset(
                PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness,
                SpacingBetweenSlices=first.SliceThickness,
            ),
            PlaneOrientationSequence=dataset(ImageOrientationPatient=first.ImageOrientationPatient),
        )
    ])  # fmt: skip
    first.PerFrameFunctionalGroupsSequence = Items(items)
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "EchoTime",
                "RescaleSlope", "RescaleIntercept"):  # fmt: skip
        first.pop(tag, None)
    for name, value in fields.items():
        setattr(first, name, value)
    first.save_as(folder / "enhanced.dcm", enforce_file_format=True)
    return folder


def _groups(header: Header, n: int, echoes: Sequence[float], plain: bool) -> Dataset:
    number = int(header.InstanceNumber)
    groups = dataset(
        PlanePositionSequence=dataset(ImagePositionPatient=header.ImagePositionPatient),
        FrameContentSequence=dataset(
            StackID="1", InStackPositionNumber=number, TemporalPositionIndex=1,
            DimensionIndexValues=[1, number, n + 1],
        ),
        PixelValueTransformationSequence=dataset(
            RescaleSlope="2" if echoes or plain else f"{1 + 0.25 * number}",
            RescaleIntercept="-3", RescaleType="US",
        ),
    )  # fmt: skip
    if echoes:
        groups.MREchoSequence = Items([dataset(EffectiveEchoTime=float(echoes[n]))])
    return groups


def write_dicomdir(folder: Path, listed: Sequence[Path]) -> Path:
    """A DICOMDIR beside the files, listing these."""
    records = [
        dataset(DirectoryRecordType="IMAGE", ReferencedFileID=list(file.relative_to(folder).parts))
        for file in listed
    ]
    directory = dataset(FileSetID="TEST")
    directory.DirectoryRecordSequence = Items(records)
    directory.file_meta = pydicom.dataset.FileMetaDataset()
    directory.file_meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    directory.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    directory.save_as(folder / "DICOMDIR", enforce_file_format=True)
    return folder / "DICOMDIR"


def _reversed_names(folder: Path) -> Path:
    """Files without an ending, whose names run against the slices."""
    files = sorted(folder.iterdir())
    for n, file in enumerate(files):
        file.rename(folder / f"IM{len(files) - n:03d}")
    return folder


LOSSLESS = (
    "JPEGLosslessProcess14_1",
    "JPEGLosslessProcess14",
    "JPEGLSLossless",
    "JPEG2000Lossless",
    "RLELossless",
    "DeflatedExplicitVRLittleEndian",
    "ExplicitVRBigEndian",
)
LOSSY = ("JPEGBaselineProcess1", "JPEG2000")

READABLE: dict[str, Callable[[Path], Path]] = {
    "oblique": made,
    **{plane: lambda f, p=plane: made(f, affine=plane_affine(p)) for plane in PLANES},  # type: ignore[misc]
    "names reversed": lambda f: _reversed_names(made(f)),
    "CT, signed": lambda f: as_ct(made(f)),
    "rescaled by slice": lambda f: edit_all(made(f), rescale_by_slice),
    "MONOCHROME1": lambda f: edit_all(made(f), invert),
    "12 of 16 bits": lambda f: edit_all(made(f), twelve_bits_of_sixteen),
    "8 bits": lambda f: edit_all(made(f), eight_bits),
    "fields lacking": lambda f: edit_all(made(f), lacking),
    "enhanced MR": lambda f: enhance(made(f)),
    "enhanced MR, plain": lambda f: enhance(made(f), plain=True),
    "enhanced CT, plain": lambda f: enhance(as_ct(made(f)), ct=True, plain=True),
    "enhanced CT": lambda f: enhance(made(f, affine=plane_affine("axial")), ct=True),
    "enhanced, JPEG-LS": lambda f: compress(enhance(made(f)), "JPEGLSLossless"),
    "implicit": lambda f: compress(made(f), "ImplicitVRLittleEndian"),
    **{s: lambda f, s=s: compress(as_ct(made(f)), s) for s in LOSSLESS},  # type: ignore[misc]
    **{s: lambda f, s=s: compress(edit_all(made(f), eight_bits), s) for s in LOSSY},  # type: ignore[misc]
}
"""Name -> maker, which returns the folder."""
