"""Read and validate the description of a data set: its labels, cases and folds.

The description is a Medical Segmentation Decathlon ``dataset.json`` with optional extensions:
``raters`` (number of annotations in the last axis of a four-dimensional label), ``label_values``
(meaning of the values in the label files), ``patient`` and ``case`` (its name) for a case,
``folds`` (lists of patients), ``test_patients`` (kept for a last test), ``published`` (number of
cases of the whole set), ``reference_names`` and ``reference_overlap`` for labels that are DICOM
SEG or RTSTRUCT files, and a label named ``ignore``, whose voxels are left out of loss and metrics.
:mod:`medsegdiff.data.named_sets` finds the description.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.data.formats import without_ending
from medsegdiff.data.label_values import LabelValues, leave_out, parse_label_values
from medsegdiff.data.named_sets import find_set
from medsegdiff.data.pixel_spacing import PixelSpacing, parse_spacing
from medsegdiff.data.references.structures import Name, Overlap, Structures

logger = logging.getLogger(__name__)

DEFAULT_FOLDS = 5

Fold = int | Literal["test", "all"]
"""Cases of a data set: those that a fold holds out, those kept for the test, or all."""

_SPATIAL_DIMS = {"2D": 2, "3D": 3, "4D": 3}  # Decathlon writes 4D where channels are stacked


@dataclass(frozen=True)
class Case:
    """One image to segment, with the annotations of it.

    Attributes:
        id: Name in the description, else that of the file without its ending; unique in a data set.
        images: Paths of one file, or folder of a DICOM series, for each channel; one file may hold
            all channels.
        labels: Paths of the label files: none, one, or one for each rater (one file may hold all
            raters in its last axis).
        patient: Name of the patient; a split never separates cases of one patient.
        label_values: Meaning of the values in the label files; empty if they are class numbers.
        spacing: Size of a photograph's pixels along columns and rows in mm; empty if not known.
    """

    id: str
    images: tuple[Path, ...]
    labels: tuple[Path, ...]
    patient: str
    label_values: LabelValues = ()
    spacing: PixelSpacing | tuple[()] = ()


@dataclass(frozen=True)
class Manifest:
    """A data set: its labels, cases and folds.

    Attributes:
        name: Name of the data set.
        root: Folder that relative paths start from.
        labels: Names by class number, consecutive from 0, the background.
        channels: Name of each input channel.
        spatial_dims: Number of spatial axes, 2 or 3.
        raters: Greatest number of annotations of a case.
        licence: Licence of the data.
        reference: Source of the data, such as an address or a paper.
        description: Sentence that describes the data.
        cases: Cases of the set, with or without labels.
        folds: Patients of each fold; a patient in no fold is never used by :meth:`split`.
        test: Patients in no fold on purpose, who are kept for a last test.
        layout: Name of the public layout by which the files were found; empty if they were listed.
        published: Number of cases of the whole set; 0 if it is not known.
        references: Structures of a DICOM SEG or RTSTRUCT that belong to each class.
        test_images: Cases without a label that the set keeps for its test, as in ``imagesTs``.
        ignored: Value of voxels that are left out of loss and metrics, or None.
        notes: Sentences on what was inferred from the files.
    """

    name: str
    root: Path
    labels: dict[int, str]
    channels: tuple[str, ...]
    spatial_dims: int
    raters: int
    licence: str
    reference: str
    description: str
    cases: tuple[Case, ...]
    folds: tuple[tuple[str, ...], ...]
    test: tuple[str, ...] = ()
    layout: str = ""
    published: int = 0
    references: Structures = field(default_factory=lambda: Structures({}))
    test_images: tuple[Case, ...] = ()
    ignored: int | None = None
    notes: tuple[str, ...] = ()

    def places(self, patients: Collection[str]) -> list[str]:
        """Places of patients in ``folds`` and ``test_patients``, for messages without names."""
        listed = {f"folds[{i}]": fold for i, fold in enumerate(self.folds)}
        listed["test_patients"] = self.test
        return [
            f"{name}[{j}]"
            for name, fold in listed.items()
            for j, patient in enumerate(fold)
            if patient in patients
        ]

    def split(self, fold: int | Literal["test"]) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
        """Labelled cases of the other folds, and labelled cases of this one.

        Args:
            fold: Number of the fold; or ``test``: the cases of all folds, and those kept for the
                test.

        Raises:
            InputError: the fold does not exist, a patient is in several folds, or no labelled case
                is left to train on or to validate with.
        """
        if fold != "test" and not (isinstance(fold, int) and 0 <= fold < len(self.folds)):
            rule = f"has folds 0 to {len(self.folds) - 1}, not {fold}"
            raise InputError(self.name, rule, "Choose one of these")
        repeated = repeats(p for patients in (*self.folds, self.test) for p in patients)
        if repeated:
            rule = f"patients stand in several folds: {shorten(self.places(repeated))}"
            raise InputError(self.name, rule, "Put each patient into one fold")
        held_out = set(self.test if fold == "test" else self.folds[fold])
        others = {patient for patients in self.folds for patient in patients} - held_out
        labelled = [case for case in self.cases if case.labels]
        training = tuple(case for case in labelled if case.patient in others)
        validation = tuple(case for case in labelled if case.patient in held_out)
        if not training or not validation:
            side = "train on" if not training else "validate with"
            rule = f"fold {fold} leaves no labelled case to {side}"
            raise InputError(self.name, rule, "Add labelled cases of other patients")
        return training, validation

    def held_out(self, fold: Fold) -> tuple[Case, ...]:
        """Cases of this fold, of the test, or all, with or without labels.

        Args:
            fold: Number of the fold; ``test``: patients kept for the test and the set's own test
                images; ``all``: the cases of both kinds and all folds.

        Raises:
            InputError: The fold does not exist or has no case; there is no test; or a test image
                has the name of a training case.
        """
        both = repeats(case.id for case in (*self.cases, *self.test_images))
        if both and fold in ("all", "test"):  # else the results of one are taken for the other's
            rule = f"has test images with the names of training cases: {shorten(both)}"
            raise InputError(self.name, rule, "Rename these, or choose a fold by its number")
        if fold == "all":
            return (*self.cases, *self.test_images)
        if fold == "test":
            patients, further = set(self.test), self.test_images
        elif 0 <= fold < len(self.folds):
            patients, further = set(self.folds[fold]), ()
        else:
            rule = f"has folds 0 to {len(self.folds) - 1}, not {fold}"
            raise InputError(self.name, rule, "Choose one of these, test or all")
        cases = (*(case for case in self.cases if case.patient in patients), *further)
        if not cases:
            rule = f"has no case in fold {fold}" if fold != "test" else "keeps no case for a test"
            raise InputError(self.name, rule, "Choose another fold, or list 'test_patients'")
        return cases

    def unlabelled(self, fold: int) -> tuple[Case, ...]:
        """Cases without a label, except those of patients in this fold or kept for the test."""
        kept = {*self.folds[fold], *self.test}
        return tuple(case for case in self.cases if not case.labels and case.patient not in kept)


def load_manifest(data: str | Path) -> Manifest:
    """The data set of a ``dataset.json``, of its folder, or of a name in ``data_manifests/``.

    A name may come with the folder of its files: ``acdc=/data/ACDC``. The image and label files
    themselves are not opened.

    Raises:
        InputError: the path does not exist, the name is unknown, the data are missing or not
            complete, or the description is broken.
    """
    found = find_set(data)
    manifest = _parse(found.described, found.root, found.file)
    for note in manifest.notes:
        _tell_once(f"{manifest.name}: {note}")
    return manifest


@lru_cache(maxsize=1000)
def _tell_once(note: str) -> None:
    """Log what was inferred of a set, which a process may load several times."""
    logger.info(note)


def parse_fold(text: str) -> Fold:
    """A fold as it is typed.

    Raises:
        UsageError: It is neither a number nor ``test`` or ``all``.

    >>> parse_fold("0"), parse_fold("test")
    (0, 'test')
    """
    words: dict[str, Fold] = {"test": "test", "all": "all"}
    if text in words or text.isdecimal():
        return words[text] if text in words else int(text)
    raise UsageError("--fold", f"{text!r} is no fold", "Give a number, test or all")


def class_slug(label: str) -> str:
    """The label's name as it appears in file names.

    >>> class_slug("Anterior"), class_slug("GD-enhancing tumour")
    ('anterior', 'gd-enhancing-tumour')
    """
    return re.sub(r"[^a-z0-9]", "-", label.lower())


def datalist(cases: Iterable[Case]) -> list[dict[str, Any]]:
    """Cases as a MONAI datalist: ``case``, ``image`` (paths), and ``label`` (paths) if labelled.

    An item has ``label_values`` if its label files hold other values than class numbers, and
    ``spacing`` if the description gives that of a photograph.
    """
    items = []
    for case in cases:
        item: dict[str, Any] = {"case": case.id, "image": [str(path) for path in case.images]}
        if case.labels:
            item["label"] = [str(path) for path in case.labels]
            if case.label_values:
                item["label_values"] = case.label_values
        if case.spacing:
            item["spacing"] = case.spacing
        items.append(item)
    return items


def case_id(images: Sequence[Path]) -> str:
    """Name of the first file without ending, and without channel number if there are several.

    >>> case_id([Path("a/liver_01.nii.gz")])
    'liver_01'
    >>> case_id([Path("brain_0000.nii.gz"), Path("brain_0001.nii.gz")])
    'brain'

    Raises:
        InputError: The file's name leaves no name for a folder of results ("...nii.gz").
    """
    stem = without_ending(images[0].name)
    name = re.sub(r"_\d{4}$", "", stem) if len(images) > 1 else stem
    if name in ("", ".", ".."):
        raise InputError(images[0], f"its name leaves {name!r} for its results", "Rename the file")
    return name


def default_folds(
    patients: Iterable[str], count: int = DEFAULT_FOLDS
) -> tuple[tuple[str, ...], ...]:
    """Deal the patients, in the order of their SHA-256, to ``count`` folds in turn.

    The folds depend on the set of patients alone, not on their order or number of cases. There are
    never more folds than patients.
    """
    ordered = sorted(set(patients), key=lambda p: hashlib.sha256(p.encode()).hexdigest())
    return tuple(tuple(sorted(ordered[i::count])) for i in range(min(count, len(ordered))))


def repeats(items: Iterable[str]) -> list[str]:
    """The items that occur more than once, sorted."""
    return sorted(item for item, count in Counter(items).items() if count > 1)


def shorten(items: Sequence[str], limit: int = 3) -> str:
    """The first ``limit`` items in words, and the number of further ones.

    >>> shorten(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def _parse(described: dict[str, Any], root: Path, file: Path) -> Manifest:
    entries = described.get("training")
    if not isinstance(entries, list) or not entries:
        rule = "'training' must list at least one case"
        raise InputError(file, rule, 'List {"image": path, "label": path} for each')
    labels, ignored = _parse_labels(described.get("labels"), file)
    classes = labels if ignored is None else {**labels, ignored: "ignore"}
    values = parse_label_values(described.get("label_values"), classes, file)
    values = leave_out(values, labels, ignored)
    cases = tuple(
        _parse_case(entry, f"{file}, training[{i}]", root, values)
        for i, entry in enumerate(entries)
    )
    test_images = _parse_test_images(described.get("test"), root, file)
    names = [case.id for case in (*cases, *test_images)]
    sizes = parse_spacing(described.get("spacing"), names, root, file)
    cases, test_images = (
        tuple(replace(case, spacing=sizes.get(case.id, ())) for case in some)
        for some in (cases, test_images)
    )
    test = _parse_patients(described.get("test_patients", []), "test_patients", file)
    repeated = repeats(case.id for case in cases)
    if repeated:
        rule = f"cases must have different names, but several are {shorten(repeated)}"
        raise InputError(file, rule, "Rename the files or remove the repeated entries")
    return Manifest(
        name=str(described.get("name", root.name)),
        root=root,
        labels=labels,
        channels=_parse_channels(described, cases, file),
        spatial_dims=_parse_dims(described, file),
        raters=_parse_raters(described, cases, file),
        licence=str(described.get("licence", described.get("license", ""))),
        reference=str(described.get("reference", "")),
        description=str(described.get("description", "")),
        cases=cases,
        folds=_parse_folds(described.get("folds"), cases, test, file),
        test=test,
        layout=str(described.get("layout", "")),
        published=_parse_count(described.get("published", 0), file),
        references=_parse_references(described, labels, file),
        test_images=test_images,
        ignored=ignored,
        notes=_parse_notes(described.get("notes", []), file),
    )


def _parse_case(entry: Any, subject: str, root: Path, values: LabelValues) -> Case:
    if not isinstance(entry, dict) or "image" not in entry:
        raise InputError(subject, "must have an 'image'", 'Write {"image": path, "label": path}')
    images = _parse_paths(entry["image"], root, f"{subject}, image")
    if not images:
        raise InputError(subject, "'image' is empty", "Give the path of the image")
    label = entry.get("label")
    labels = _parse_paths(label, root, f"{subject}, label") if label else ()
    name = str(entry.get("case") or case_id(images))
    if Path(name).name != name or name == "..":  # else its results lie outside the output folder
        raise InputError(subject, f"'case' cannot name a folder: {name!r}", "Give another name")
    patient = entry.get("patient")
    return Case(name, images, labels, name if patient is None else str(patient), values)


def _parse_paths(value: Any, root: Path, subject: str) -> tuple[Path, ...]:
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(p, str) and p for p in paths):
        raise InputError(subject, f"must be a path or a list of paths, not {value!r}", "Correct it")
    return tuple(root / path for path in paths)


def _parse_test_images(value: Any, root: Path, file: Path) -> tuple[Case, ...]:
    """Cases of the key ``test``: paths, as the Decathlon has them, or entries; none if unusable."""
    listed = value if isinstance(value, list) else []
    entries = [{"image": one} if isinstance(one, str | list) else one for one in listed]
    cases = (_parse_case(entry, f"{file}, test[{i}]", root, ()) for i, entry in enumerate(entries))
    return tuple(replace(case, labels=()) for case in cases)


def _parse_labels(value: Any, file: Path) -> tuple[dict[int, str], int | None]:
    """Names by class number, and the value of the label ``ignore``, or None.

    Accepts both ``{"0": "background"}`` (Decathlon) and ``{"background": 0}`` (nnU-Net v2).
    """
    remedy = 'Write {"0": "background", "1": "name", ...}'
    if not isinstance(value, dict) or not value:
        raise InputError(file, "'labels' must name the label values", remedy)
    try:
        labels = {int(key): str(name) for key, name in value.items()}
    except ValueError:
        if not all(type(number) is int for number in value.values()):
            raise InputError(file, "'labels' must be whole numbers", remedy) from None
        labels = {number: name for name, number in value.items()}
    if len(labels) < len(value):
        raise InputError(file, "a value in 'labels' occurs twice", remedy)
    labels.setdefault(0, "background")
    ignored = next((number for number, name in labels.items() if name.lower() == "ignore"), None)
    if ignored is not None:
        if ignored != max(labels):
            rule = f"the label 'ignore' must have the highest value, not {ignored}"
            raise InputError(file, rule, "Renumber the label files")
        del labels[ignored]
    if sorted(labels) != list(range(len(labels))) or len(labels) < 2:
        rule = f"'labels' must be 0, 1, 2, ... without a gap, not {sorted(labels)}"
        raise InputError(file, rule, "Renumber the label files")
    repeated = repeats(class_slug(name) for name in labels.values())
    if repeated:
        rule = f"names of labels must differ in letters and digits: {shorten(repeated)}"
        raise InputError(file, rule, "Rename one of them")
    return dict(sorted(labels.items())), ignored


def _parse_channels(
    described: dict[str, Any], cases: tuple[Case, ...], file: Path
) -> tuple[str, ...]:
    value = described.get("channel_names", described.get("modality"))
    if value is None:
        return tuple(f"channel {i}" for i in range(len(cases[0].images)))
    if isinstance(value, dict) and value:
        try:
            return tuple(str(value[key]) for key in sorted(value, key=int))
        except ValueError:
            pass
    raise InputError(file, "'modality' must name the channels", 'Write {"0": "MRI"}')


def _parse_dims(described: dict[str, Any], file: Path) -> int:
    size = str(described.get("tensorImageSize", "3D")).upper()
    if size not in _SPATIAL_DIMS:
        rule = f"'tensorImageSize' must be 2D or 3D, not {size}"
        raise InputError(file, rule, "Correct it")
    return _SPATIAL_DIMS[size]


def _parse_raters(described: dict[str, Any], cases: tuple[Case, ...], file: Path) -> int:
    listed = max(1, *(len(case.labels) for case in cases))
    raters = described.get("raters", listed)
    if type(raters) is not int or raters < listed:
        rule = f"'raters' must be a whole number of {listed} or more, not {raters!r}"
        raise InputError(file, rule, "Correct it")
    return raters


def _parse_count(value: Any, file: Path) -> int:
    if type(value) is not int or value < 0:
        rule = f"'published' must be a number of cases, not {value!r}"
        raise InputError(file, rule, "Correct it")
    return value


def _parse_notes(value: Any, file: Path) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InputError(file, f"'notes' must be a list of sentences, not {value!r}", "Correct it")
    return tuple(str(note) for note in value)


def _parse_references(described: dict[str, Any], labels: dict[int, str], file: Path) -> Structures:
    """The structures of each class: the label's name, and those in ``reference_names``."""
    further = described.get("reference_names", {})
    known = set(labels.values()) - {labels[0]}
    if not isinstance(further, dict) or not set(further) <= known:
        rule = f"'reference_names' must be lists of names for some of {sorted(known)}"
        raise InputError(file, rule, 'Write {"liver": ["Leber", 3, null]}')
    names: dict[int, tuple[Name, ...]] = {}
    for value, label in labels.items():
        listed = further.get(label, [])
        listed = listed if isinstance(listed, list) else [listed]
        if not all(one is None or type(one) in (str, int) for one in listed):
            rule = f"'reference_names' of {label} must be names, numbers or null, not {listed}"
            raise InputError(file, rule, 'Write {"liver": ["Leber", 3, null]}')
        if value != 0:
            names[value] = (label, *listed)
    overlap = described.get("reference_overlap", "refuse")
    if overlap not in get_args(Overlap):
        rule = f"'reference_overlap' must be one of {get_args(Overlap)}, not {overlap!r}"
        raise InputError(file, rule, "Correct it")
    return Structures(names, overlap)


def _parse_folds(
    value: Any, cases: tuple[Case, ...], test: tuple[str, ...], file: Path
) -> tuple[tuple[str, ...], ...]:
    if value is None:
        return default_folds({case.patient for case in cases} - set(test))
    if not isinstance(value, list) or not value:
        raise InputError(file, "'folds' must be a list of lists of patients", "Correct it")
    return tuple(_parse_patients(fold, "folds", file) for fold in value)


def _parse_patients(value: Any, key: str, file: Path) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InputError(file, f"'{key}' must hold lists of patients", "Correct it")
    return tuple(str(patient) for patient in value)
