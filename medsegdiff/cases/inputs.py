"""Finds the cases to segment in the inputs that a user names on the command line."""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import shutil
import tempfile
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from medsegdiff.core.atomic_files import write_text
from medsegdiff.core.errors import InputError
from medsegdiff.core.limits import check_inflation
from medsegdiff.core.types import Uneven
from medsegdiff.data import dicom
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.formats import Kind, format_of, list_endings
from medsegdiff.data.images import Source, only_series
from medsegdiff.data.layouts import bids
from medsegdiff.data.layouts.case_folders import channel_files, labels_among
from medsegdiff.data.layouts.channel_files import split_channel
from medsegdiff.data.layouts.image_and_label_folders import label_folder
from medsegdiff.data.manifest import Case, case_id, load_manifest
from medsegdiff.data.readers.damage import broken_link, is_broken_link
from medsegdiff.dicomweb.address import Address, is_address, parse_address
from medsegdiff.dicomweb.wado import fetch

TEMPORARY = "medsegdiff-"
"""Beginning of the names of temporary folders, which hold unpacked and fetched images."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DicomOptions:
    """How DICOM series become cases.

    Attributes:
        uneven: Treatment of a series whose slices are not evenly spaced.
        channels: Words that each select one series of a study (see
            :func:`medsegdiff.data.dicom.choose_channels`); a study is then one case with these
            channels. Without words, each series is a case.
    """

    uneven: Uneven = "refuse"
    channels: tuple[str, ...] = ()


def parse_inputs(inputs: Sequence[str | Path]) -> list[Path | Address]:
    """Parse a user's inputs into paths and DICOMweb addresses.

    Raises:
        UsageError: an address cannot be understood, or holds credentials.
        InputError: the package that addresses need is not installed.
    """
    numbered = enumerate(inputs, start=1)
    return [parse_address(str(i), n) if is_address(i) else Path(i) for n, i in numbered]


@contextmanager
def found_cases(
    inputs: Sequence[Path | Address],
    output: Path,
    options: DicomOptions | None = None,
    channels: int = 1,
    names: Sequence[str] = (),
) -> Iterator[tuple[list[CaseInput], dict[str, InputError]]]:
    """Find the cases in ``inputs``, and the inputs without a case, with the reason.

    Unpacked zips and series fetched from a DICOMweb server exist only while the block runs.

    Args:
        inputs: Image files (NIfTI, NRRD, MetaImage, photographs, DICOM), folders or zips of such,
            addresses, or a data set's ``dataset.json``.
        output: Output folder; the ids of DICOM cases are made with its ``.salt``, which is created
            when first needed.
        options: Options for DICOM inputs.
        channels: Number of channels of a case; as many files ``x_0000``, ``x_0001``, ... of a
            folder are one case.
        names: Names of these channels; a folder with a file of each name is one case, too.
    """
    options = options or DicomOptions()
    found: list[tuple[CaseInput, Path | Address]] = []
    listed: list[CaseInput] = []  # these have their names and channels already
    failures: dict[str, InputError] = {}
    with ExitStack() as stack:
        for given in inputs:
            try:
                if isinstance(given, Path) and given.suffix.lower() == ".json":
                    described, failed = described_cases(load_manifest(given).cases, options)
                    listed, failures = listed + described, failures | failed
                    continue
                here = _cases_in(given, output, stack, options, failures)
                found += [(case, given) for case in here]
            except InputError as error:
                failures[str(given)] = error
            except OSError as error:  # its own message may name files inside the input
                rule = f"cannot be read ({error.strerror})"
                failures[str(given)] = InputError(given, rule, "Check it")
        cases = joined_files(_told_apart(_joined_folders(found, names)), channels, failures)
        yield _with_unique_ids([*listed, *cases]), failures


def described_cases(
    cases: Iterable[Case], options: DicomOptions | None = None
) -> tuple[list[CaseInput], dict[str, InputError]]:
    """The cases of a data set's description, under their names there, and those that failed.

    A folder stands for the one DICOM series in it. Only ``uneven`` of ``options`` is used.
    """
    uneven = (options or DicomOptions()).uneven
    found: list[CaseInput] = []
    failures: dict[str, InputError] = {}
    for case in cases:
        try:
            image: tuple[Source, ...] = tuple(
                replace(only_series(path), uneven=uneven) if path.is_dir() else path
                for path in case.images
            )
            found.append(CaseInput(case.id, image, spacing=case.spacing))
        except InputError as error:
            failures[case.id] = error
    return found, failures


def _cases_in(
    given: Path | Address,
    output: Path,
    stack: ExitStack,
    options: DicomOptions,
    failures: dict[str, InputError],
) -> list[CaseInput]:
    """The cases of one input. Studies in it that cannot be a case are added to ``failures``."""
    if isinstance(given, Address):
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=TEMPORARY)))
        fetch(given, folder)
        series = _dicom_series(folder, str(given))
        fetched = _dicom_cases(series, given, output, options, failures)
        return [replace(case, service=given.service) for case in fetched]
    if not given.exists():
        raise InputError(given, "there is no such file or folder", "Check the path")
    folder = given
    if given.suffix.lower() == ".zip":
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=TEMPORARY)))
        _unpack(given, folder)
    if bids.recognises(folder, {}):
        return _bids_cases(folder, failures)
    volumes = _files_of(folder, "volume", output)
    for file in filter(is_broken_link, volumes):
        failures[str(file)] = broken_link(file)
    if volumes:
        volumes = [file for file in volumes if not is_broken_link(file)]
        _tell_left_out(folder, volumes)
        beside = _series_beside(folder, given)
        cases = _dicom_cases(beside, given, output, options, failures)
        return [*_one_each(volumes, folder), *cases]
    try:
        series = _dicom_series(folder, given)
    except InputError:
        photographs = _files_of(folder, "photograph", output)
        if not photographs:
            raise
        return _one_each(photographs, folder)
    return _dicom_cases(series, given, output, options, failures)


def _one_each(files: Sequence[Path], folder: Path) -> list[CaseInput]:
    """A case each; where names repeat, as T1 in a folder of each patient, these folders tell."""
    names = [case_id([path]) for path in files]
    if len(set(names)) < len(names):
        below = [path.relative_to(folder).parts[:-1] for path in files]
        names = ["_".join((*place, name)) for place, name in zip(below, names, strict=True)]
    return [CaseInput(name, (path,)) for name, path in zip(names, files, strict=True)]


def _bids_cases(folder: Path, failures: dict[str, InputError]) -> list[CaseInput]:
    """The images of one contrast, of which broken links fail; derivatives are none."""
    images, notes = bids.chosen_images(folder)
    for note in notes:
        logger.warning("%s: %s", folder, note)
    for path in filter(is_broken_link, images):
        failures[str(path)] = broken_link(path)
    return [CaseInput(case_id([path]), (path,)) for path in images if not is_broken_link(path)]


def joined_files(
    cases: Sequence[CaseInput], channels: int, failures: dict[str, InputError]
) -> list[CaseInput]:
    """Cases of one file each, of which the channels ``x_0000``, ``x_0001``, ... are one case ``x``.

    Args:
        cases: Cases that were found.
        channels: Number of channels of a case. With one, the number is left out of the name where
            a folder has several files and all are ``_0000``.
        failures: Mapping that gets the cases that lack a channel.
    """
    groups: dict[tuple[Path, str], list[tuple[int, CaseInput]]] = defaultdict(list)
    for case in cases:
        path = case.image[0]
        stem, number = split_channel(path.name) if isinstance(path, Path) else ("", None)
        if number is not None and len(case.image) == 1 and isinstance(path, Path):
            groups[path.parent, stem].append((number, case))
    first_alone = {place for place, _ in groups} if channels == 1 and len(groups) > 1 else set()
    for (place, _), group in groups.items():
        if [number for number, _ in group] != [0]:
            first_alone.discard(place)
    replaced: dict[int, CaseInput | None] = {}
    for (place, stem), group in groups.items():
        numbers, members = [n for n, _ in group], [case for _, case in group]
        name = members[0].id.rpartition("_")[0]
        if numbers == list(range(channels)) and (channels > 1 or place in first_alone):
            image = tuple(path for case in members for path in case.image)
            replaced |= dict.fromkeys(map(id, members), None)
            replaced[id(members[0])] = CaseInput(name, image)
        elif channels > 1 and (len(group) > 1 or numbers == [0]):
            found = ", ".join(f"{stem}_{number:04d}" for number in numbers)
            rule = (
                f"needs {channels} channels in files _0000 to _{channels - 1:04d}, but has {found}"
            )
            failures[name] = InputError(name, rule, "Add the missing files, or remove the others")
            replaced |= dict.fromkeys(map(id, members), None)
    joined = [replaced.get(id(case), case) for case in cases]
    return [case for case in joined if case is not None]


def _joined_folders(
    found: Sequence[tuple[CaseInput, Path | Address]], names: Sequence[str]
) -> list[tuple[CaseInput, Path | Address]]:
    """Cases of one file each, of which those in a folder with all channels are one case.

    Args:
        found: Cases, each with the input that it came from.
        names: Names of the channels.
    """
    if len(names) < 2:
        return list(found)
    given = {path for case, _ in found for path in case.image if isinstance(path, Path)}
    files = {folder: channel_files(folder, names) for folder in {path.parent for path in given}}
    files = {folder: of for folder, of in files.items() if of and given.issuperset(of)}
    repeated = Counter(folder.name for folder in files)
    joined: list[tuple[CaseInput, Path | Address]] = []
    for case, origin in found:
        path = case.image[0]
        of_folder = files.get(path.parent, ()) if isinstance(path, Path) else ()
        if not of_folder or len(case.image) > 1:
            joined.append((case, origin))
        elif path == of_folder[0]:
            place = of_folder[0].parent.resolve()
            above = f"{place.parent.name}_" if repeated[path.parent.name] > 1 else ""
            unpacked = place.name.startswith(TEMPORARY) and isinstance(origin, Path)
            name = Path(str(origin)).stem if unpacked else f"{above}{place.name}"
            joined.append((CaseInput(name, of_folder), origin))
    return joined


def _files_of(path: Path, kind: Kind, output: Path) -> list[Path]:
    """The file itself, whatever its kind; of a folder, the files in it, else all those below it.

    Files in the output folder, in a folder of labels beside one of images, or called as labels
    beside images, are not inputs, unless the user named that folder, or that file.
    """
    if path.is_file():
        return [path] if format_of(path) else []
    labels = label_folder(path)
    root, results = path.resolve(), output.resolve()
    inside = results.is_relative_to(root) and results != root
    below = [
        file
        for file in sorted(path.rglob("*"))
        if _is_image(file, kind)
        and not (inside and file.is_relative_to(path / results.relative_to(root)))
        and not (labels and file.is_relative_to(labels))
    ]
    drawn = set().union(*map(labels_among, {file.parent for file in below}))
    if drawn:
        told = "%s: %d files that are called as labels are left out. Name these to include them"
        logger.warning(told, path, len(drawn))
    below = [file for file in below if file not in drawn]
    files = [file for file in below if file.parent == path] or below
    others = {file.parent for file in below} - {file.parent for file in files}
    if others:  # their names may be patients' names, so that only the count is logged
        told = "%s: image files of %d folders below it are left out. Name these to include them"
        logger.warning(told, path, len(others))
    return files


def _tell_left_out(folder: Path, chosen: Sequence[Path]) -> None:
    """Log how many photographs beside the volumes are left out."""
    others = [] if folder.is_file() else [f for f in folder.iterdir() if _is_image(f, "photograph")]
    if others and any(file.parent == folder for file in chosen):
        told = "%s: %d photographs beside the volumes are left out. Name these to include them"
        logger.warning(told, folder, len(others))


def _series_beside(folder: Path, given: Path) -> list[dicom.Series]:
    """The DICOM series in a folder of other volumes; none if it has none, or all are left out."""
    if folder.is_file():
        return []
    try:
        return dicom.find_series(folder, given)
    except InputError as error:
        if ": " in error.rule:
            logger.warning("%s: %s", given, error.rule)
        return []


def _dicom_series(path: Path, given: Path | str) -> list[dicom.Series]:
    try:
        return dicom.find_series(path, given)
    except InputError as error:
        why = error.rule.partition(": ")[2]
        raise InputError(
            given,
            "holds neither a file of a known format nor a DICOM image"
            + (f" to segment ({why})" if why else ""),
            f"Name one that does; known are DICOM and {', '.join(list_endings())}",
        ) from error


def _dicom_cases(
    series: Sequence[dicom.Series],
    given: object,
    output: Path,
    options: DicomOptions,
    failures: dict[str, InputError],
) -> list[CaseInput]:
    """One case per series, or per study with channels. ``given`` names the input in errors."""
    salt = _salt(output) if series else ""
    series = [replace(one, uneven=options.uneven) for one in series]
    if not options.channels:
        return [CaseInput(dicom.case_id(one, salt), (one,)) for one in series]
    cases = []
    studies = dicom.by_study(series)
    for number, study in enumerate(studies, start=1):
        name = f"{given}, study {number} of {len(studies)}" if len(studies) > 1 else str(given)
        try:
            chosen = dicom.choose_channels(study, options.channels, name)
        except InputError as error:
            failures[name] = error
            continue
        cases.append(CaseInput(dicom.case_id(chosen, salt), chosen))
    return cases


def _is_image(path: Path, kind: Kind) -> bool:
    found = format_of(path)
    there = path.is_file() or is_broken_link(path)  # which fails by itself
    return there and path.name[0] != "." and found is not None and found.kind == kind


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as content:
            size = sum(one.file_size for one in content.infolist())  # it never unpacks more
            _check_unpacked(archive, folder, size)
            content.extractall(folder)  # never writes outside the folder
    except InputError:
        raise
    except Exception as error:  # a damaged archive raises whatever its decompressor does
        kind = type(error).__name__  # its message would name files
        raise InputError(archive, f"cannot be unpacked ({kind})", "Check the zip") from error


def _check_unpacked(archive: Path, folder: Path, size: int) -> None:
    """Refuse a zip that becomes far larger than images do, or than the disk has room for."""
    check_inflation(archive, archive.stat().st_size, size)
    free = shutil.disk_usage(folder).free
    if size > free:
        rule = f"needs {size / 2**30:.3g} GiB to be unpacked, where {free / 2**30:.3g} are free"
        raise InputError(archive, rule, "Let TMPDIR name a folder on a larger disk")


def _salt(output: Path) -> str:
    """The output folder's own random salt. A series keeps its id within one output folder only."""
    path = output / ".salt"
    if not path.is_file():
        write_text(path, secrets.token_hex(16))
    return path.read_text(encoding="utf-8").strip()


def _told_apart(found: Sequence[tuple[CaseInput, Path | Address]]) -> list[CaseInput]:
    """The cases; where files' names repeat, as T1 of several patients, their inputs' folders tell.

    Args:
        found: Cases, each with the input that it came from.
    """
    places: dict[str, list[Path]] = defaultdict(list)
    for case, given in found:
        if isinstance(given, Path):
            places[case.id].append(_folder_of(given))
    above = {name: os.path.commonpath(alike) for name, alike in places.items() if len(alike) > 1}
    named = []
    for case, given in found:
        if case.id in above and isinstance(given, Path) and isinstance(case.image[0], Path):
            below = _folder_of(given).relative_to(above[case.id]).parts
            case = replace(case, id="_".join((*below, case.id)))
        named.append(case)
    return named


def _folder_of(given: Path) -> Path:
    """The folder that an input is, that it would be if it were unpacked, or that it lies in."""
    path = given.absolute()
    if path.suffix.lower() == ".zip":
        return path.with_suffix("")
    return path if path.is_dir() else path.parent


def _with_unique_ids(cases: Sequence[CaseInput]) -> list[CaseInput]:
    """Cases with unique ids: the second case of the same id gets ``-2`` appended, and so on."""
    given = {case.id for case in cases}
    unique: dict[str, CaseInput] = {}
    for case in cases:
        others = (f"{case.id}-{n}" for n in itertools.count(2))
        free = (name for name in others if name not in unique and name not in given)
        name = next(free) if case.id in unique else case.id
        unique[name] = replace(case, id=name)
    return list(unique.values())
