"""Tiny imitations of public sets, laid out as they are downloaded; every value is generated."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from medsegdiff.data.dicom import find_series
from medsegdiff.phantoms.cohort import write_dicom_series

SHAPE = (8, 7, 6)
LIDC_AFFINE = np.array(
    [[-0.7, 0.0, 0.0, 30.0], [0.0, -0.7, 0.0, 40.0], [0.0, 0.0, 2.5, -100.0], [0.0, 0.0, 0.0, 1.0]]
)
TASKS = {
    "msd_brain_tumour": ("BRATS", 4, ["edema", "non-enhancing tumor", "enhancing tumour"]),
    "msd_heart": ("la", 1, ["left atrium"]),
    "msd_liver": ("liver", 1, ["liver", "cancer"]),
    "msd_hippocampus": ("hippocampus", 1, ["Anterior", "Posterior"]),
    "msd_prostate": ("prostate", 2, ["PZ", "TZ"]),
    "msd_lung": ("lung", 1, ["cancer"]),
    "msd_pancreas": ("pancreas", 1, ["pancreas", "cancer"]),
    "msd_hepatic_vessel": ("hepaticvessel", 1, ["Vessel", "Tumour"]),
    "msd_spleen": ("spleen", 1, ["spleen"]),
    "msd_colon": ("colon", 1, ["colon cancer primaries"]),
}


def volume(file: Path, seed: int, channels: int = 1) -> None:
    shape = (*SHAPE, channels) if channels > 1 else SHAPE
    save(file, np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32))


def labels(file: Path, values: Sequence[int]) -> None:
    """All the values, each in a slab."""
    array = np.zeros(SHAPE, dtype=np.uint8)
    for x, value in enumerate(values):
        array[x % SHAPE[0]] = value
    save(file, array)


def save(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), file)


def photograph(file: Path, seed: int, mode: str = "RGB") -> None:
    shape = (12, 16, 3) if mode == "RGB" else (12, 16)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def mask(
    file: Path, values: Sequence[int], mode: str = "L", size: tuple[int, int] = (16, 12)
) -> None:
    """Vertical stripes of all the values; the last, which is the widest, lies to the right."""
    pixels = np.full(size[::-1], values[-1], dtype=np.uint8)
    for x, value in enumerate(values[:-1]):
        pixels[:, 4 * x : 4 * x + 4] = value
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(file)


def decathlon(root: Path, task: str) -> Path:
    prefix, channels, names = TASKS[task]
    entries = []
    for i in range(1, 4):
        file = f"{prefix}_{i:03d}.nii.gz"
        volume(root / "imagesTr" / file, i, channels)
        labels(root / "labelsTr" / file, range(len(names) + 1))
        volume(root / "imagesTs" / f"{prefix}_{i + 3:03d}.nii.gz", i + 3, channels)
        (root / "imagesTr" / f"._{file}").write_bytes(b"of macOS")
        entries.append({"image": f"./imagesTr/{file}", "label": f"./labelsTr/{file}"})
    described = {
        "name": task,
        "tensorImageSize": "4D" if channels > 1 else "3D",
        "modality": {str(i): f"channel {i}" for i in range(channels)},
        "labels": {"0": "background"} | {str(i + 1): name for i, name in enumerate(names)},
        "numTraining": 3,
        "training": entries,
        "test": [f"./imagesTs/{prefix}_{i:03d}.nii.gz" for i in range(4, 7)],
    }
    (root / "dataset.json").write_text(json.dumps(described))
    return root


def brats(root: Path, year: int) -> Path:
    if year == 2023:
        cases, joint, channels = ["00000-000", "00002-000", "00002-001"], "-", "t1n t1c t2w t2f"
        names, values = [f"BraTS-GLI-{case}" for case in cases], [0, 1, 2, 3]
    else:
        stem = "BraTS2021_0000" if year == 2021 else "BraTS20_Training_00"
        joint, channels, values = "_", "t1 t1ce t2 flair", [0, 1, 2, 4]
        names = [f"{stem}{i}" for i in (0, 2, 3)]
    ending = "nii" if year == 2020 else "nii.gz"
    for i, name in enumerate(names):
        for c, channel in enumerate(channels.split()):
            volume(root / name / f"{name}{joint}{channel}.{ending}", 10 * i + c)
        labels(root / name / f"{name}{joint}seg.{ending}", values)
    if year == 2020:
        (root / names[2] / f"{names[2]}_seg.nii").rename(
            root / names[2] / "W39_1998.09.19_Segm.nii"
        )
        (root / "name_mapping.csv").write_text("Grade\n")
    return root


def isic(root: Path) -> Path:
    for part, first in (("Training", 0), ("Validation", 10), ("Test", 20)):
        for i in range(first, first + 3):
            photograph(root / f"ISIC2018_Task1-2_{part}_Input" / f"ISIC_{i:07d}.jpg", i)
            name = f"ISIC_{i:07d}_segmentation.png"
            mask(root / f"ISIC2018_Task1_{part}_GroundTruth" / name, [255, 0])
        (root / f"ISIC2018_Task1-2_{part}_Input" / "ATTRIBUTION.txt").write_text("")
    return root


def refuge(root: Path) -> Path:
    train = root / "Train"
    for i in (1, 2):
        for kind, stem in (("Glaucoma", f"g000{i}"), ("Non-Glaucoma", f"n000{i}")):
            one = train / "REFUGE1-train"
            photograph(one / "Training400" / kind / f"{stem}.jpg", 70 * i + len(kind))
            mask(one / "Disc_Cup_Masks" / kind / f"{stem}.bmp", [0, 128, 255])
            photograph(one / "Disc_Cup_Fovea_Illustration" / kind / f"{stem}.jpg", 99)
        photograph(train / f"REFUGE1-val/REFUGE-Validation400/V000{i}.jpg", 20 + i)
        mask(train / f"REFUGE1-val/Disc_Cup_Masks/V000{i}.bmp", [0, 128, 255], "P")
        photograph(train / f"REFUGE1-test/Test400/T000{i}.jpg", 30 + i)
        mask(train / f"REFUGE1-test/Disc_Cup_Masks/G/T000{i}.bmp", [0, 128, 255])
        photograph(root / f"Validation/Images/V000{i}.jpg", 40 + i)
        mask(root / f"Validation/Disc_Masks/V000{i}.png", [0, 128, 255])
        photograph(root / f"Test/refuge2-test/T000{i}.jpg", 50 + i)
        mask(root / f"Test/Disc_Mask/T000{i}.png", [0, 128, 255], "RGB")
    return root


def acdc(root: Path) -> Path:
    for number, end in ((1, 12), (2, 9), (3, 10), (101, 14)):
        patient = f"patient{number:03d}"
        folder = root / ("testing" if number > 100 else "training") / patient
        folder.mkdir(parents=True)
        (folder / "Info.cfg").write_text(f"ED: 1\nES: {end}\nGroup: DCM\nNbFrame: 30\n")
        for frame in (1, end):
            volume(folder / f"{patient}_frame{frame:02d}.nii.gz", 100 * number + frame)
            labels(folder / f"{patient}_frame{frame:02d}_gt.nii.gz", range(4))
        volume(folder / f"{patient}_4d.nii.gz", number, channels=2)
    return root


def amos(root: Path) -> Path:
    for part, numbers in (("Tr", (1, 4, 507, 540)), ("Va", (8, 13, 510)), ("Ts", (2,))):
        for number in numbers:
            volume(root / f"images{part}" / f"amos_{number:04d}.nii.gz", number)
            if part != "Ts":
                labels(root / f"labels{part}" / f"amos_{number:04d}.nii.gz", [0, 1, 6, 15])
    (root / "dataset.json").write_text("{}")
    return root


def btcv(root: Path) -> Path:
    for i in (1, 2, 21):
        volume(root / f"Training/img/img00{i:02d}.nii.gz", i)
        labels(root / f"Training/label/label00{i:02d}.nii.gz", [0, 1, 6, 13])
    volume(root / "Testing/img/img0061.nii.gz", 61)
    return root


def btcv_averaged(root: Path) -> Path:
    for i in (1, 2, 3):
        volume(root / f"averaged-training-images/DET000{i}101_avg.nii.gz", i)
        labels(root / f"averaged-training-labels/DET000{i}101_avg_seg.nii.gz", [0, 1, 6, 13])
    return root


def tn3k(root: Path) -> Path:
    for part, count in (("trainval", 5), ("test", 2)):
        for i in range(count):
            mode = "L" if i % 2 else "RGB"
            photograph(root / f"{part}-image" / f"{i:04d}.jpg", i + len(part), mode)
            mask(root / f"{part}-mask" / f"{i:04d}.jpg", [255, 0], mode)
    for k in range(5):
        split = {"train": [i for i in range(5) if i != k], "val": [k]}
        (root / f"tn3k-trainval-fold{k}.json").write_text(json.dumps(split))
    return root


def ddti(root: Path) -> Path:
    """Case 3 is cut off, as some of the published files are; case 1 has an image without a mark."""
    root.mkdir(parents=True, exist_ok=True)
    square = [{"x": x, "y": y} for x, y in ((2, 3), (9, 3), (9, 8), (2, 8))]
    region = [{"points": square, "annotation": {}, "regionType": "freehand"}]
    for case in (1, 2, 3):
        for image in (1, 2):
            photograph(root / f"{case}_{image}.jpg", 10 * case + image)
        svg = json.dumps(region)
        svg = svg[:-20] if case == 3 else svg
        (root / f"{case}.xml").write_text(
            f"<case><number>{case}</number><tirads>4</tirads>"
            f"<mark><image>1</image><svg>{svg}</svg></mark>"
            "<mark><image>2</image><svg></svg></mark></case>"
        )
    return root


def square_outline(x: int, y: int, size: int) -> list[tuple[int, int]]:
    """The pixels of a square's edge, one after the other."""
    a, b = range(size), range(size - 1, -1, -1)
    top, bottom = [(x + i, y) for i in a], [(x + i, y + size - 1) for i in b]
    right, left = [(x + size - 1, y + i) for i in a], [(x, y + i) for i in b]
    return [*top, *right[1:], *bottom[1:], *left[1:-1]]


def lidc(root: Path) -> Path:
    """Two patients. The first has a nodule that raters 1 to 3 drew, one of rater 4, and a dot."""
    rng = np.random.default_rng(5)
    for patient, marked in ((1, True), (2, False)):
        folder = root / f"LIDC-IDRI-{patient:04d}" / "01-01-2000-30178" / "3000566.000000-03192"
        scan = rng.integers(0, 2000, (96, 90, 5), dtype=np.uint16)
        write_dicom_series(scan, LIDC_AFFINE, folder, patient=f"LIDC-IDRI-{patient:04d}", number=2)
        (series,) = find_series(folder)
        nodules: list[list[tuple[int, list[tuple[int, int]], bool]]] = [[], [], [], []]
        if marked:
            for rater in range(3):
                outline = square_outline(40 + rater, 50, 9)
                nodules[rater] = [(1, outline, True), (2, outline, True)]
            nodules[1].append((2, square_outline(43, 52, 5), False))  # a hole
            nodules[3] = [(3, square_outline(10, 10, 6), True)]
        (folder / "069.xml").write_text(lidc_xml(series.uid, nodules))
    return root


def lidc_xml(
    uid: str, nodules: Sequence[Sequence[tuple[int, Sequence[tuple[int, int]], bool]]]
) -> str:
    """One nodule a rater, of outlines (slice, points, included), and a dot of the first rater."""
    sessions = []
    for rater, outlines in enumerate(nodules):
        rois = "".join(_roi(*outline) for outline in outlines)
        found = [f"<unblindedReadNodule><noduleID>{rater}</noduleID>{rois}</unblindedReadNodule>"]
        if rater == 0:
            dot = _roi(4, [(60, 60)], True)
            found.append(f"<unblindedReadNodule><noduleID>9</noduleID>{dot}</unblindedReadNodule>")
        sessions.append(f"<readingSession>{''.join(found)}</readingSession>")
    header = f"<ResponseHeader><SeriesInstanceUid>{uid}</SeriesInstanceUid></ResponseHeader>"
    return (
        f'<LidcReadMessage xmlns="http://www.nih.gov">{header}{"".join(sessions)}</LidcReadMessage>'
    )


def _roi(slice_number: int, points: Sequence[tuple[int, int]], included: bool) -> str:
    edges = "".join(
        f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points
    )
    z = -100 + 2.5 * slice_number
    inclusion = str(included).upper()
    return (
        f"<roi><imageZposition>{z}</imageZposition><inclusion>{inclusion}</inclusion>{edges}</roi>"
    )


def _task(task: str) -> Callable[[Path], Path]:
    return lambda root: decathlon(root, task)


def _year(year: int) -> Callable[[Path], Path]:
    return lambda root: brats(root, year)


READ_IN_PLACE: dict[str, Callable[[Path], Path]] = {
    **{task: _task(task) for task in TASKS},
    **{f"brats{year}": _year(year) for year in (2020, 2021, 2023)},
    "isic2018": isic,
    "refuge2": refuge,
    "acdc": acdc,
    "amos": amos,
    "amos_ct": amos,
    "amos_mr": amos,
    "btcv": btcv,
    "tn3k": tn3k,
}
"""Name of a set -> writes its imitation into a folder, and returns it."""
