"""The job of ``medsegdiff prompt``: masks of words in images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from medsegdiff.bundle.bundle import Bundle, checked_device, list_bundles, load_bundle
from medsegdiff.cases.inputs import found_cases, parse_inputs
from medsegdiff.cases.one_by_one import one_by_one
from medsegdiff.cases.writer import CaseWriter
from medsegdiff.core.atomic_files import digest
from medsegdiff.core.errors import UsageError
from medsegdiff.core.progress import progress
from medsegdiff.core.quiet import silenced
from medsegdiff.core.types import OutputFormat
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.manifest import class_slug
from medsegdiff.prompting.changes import changed
from medsegdiff.prompting.grounded import GroundedSegmenter, load_head
from medsegdiff.prompting.pipeline import TextToImage, load_pipeline
from medsegdiff.prompting.prompt_options import PromptOptions
from medsegdiff.prompting.prompted_case import Axis, FoundWords, find_words
from medsegdiff.prompting.word_segmenter import FindWords, PromptSegmenter
from medsegdiff.writers.segments import Algorithm, segments_of


@silenced()
def prompt(
    inputs: Sequence[str | Path],
    words: Sequence[str],
    model: str,
    output: Path,
    options: PromptOptions | None = None,
    *,
    grounding: Path | None = None,
    axis: Axis = "axial",
    device: str = "auto",
    formats: Sequence[OutputFormat] = ("nifti",),
    save_members: bool = False,
    overwrite: bool = False,
    **settings: Any,
) -> dict[str, str]:
    """Find words in images and write the files of each case, as ``segment`` does.

    Args:
        inputs: NIfTI, DICOM or photograph files, folders or zips of such.
        words: Words to find; the k-th is class k.
        model: Folder in the ``diffusers`` format, bundle with such a model, or name on a hub.
        output: Folder for a folder of each case.
        options: Options of finding words; None for those that the model's bundle recommends, else
            the defaults.
        grounding: File of a head from ``ground``, which finds words instead of attention alone; of
            the options, only ``draws``, ``seed`` and ``windows`` are then used.
        axis: Plane of the slices of a volume.
        device: Name of a torch device, or ``auto``.
        formats: Formats of the files to write.
        save_members: Whether to write the mask of each draw of noise.
        overwrite: Whether to process complete cases again.
        settings: Fields of the options -> values that replace theirs.

    Returns:
        Failed input or case -> reason.

    Raises:
        InputError: the model cannot be used.
        UsageError: words are missing or alike, a setting is unknown, or the device cannot be used.
    """
    names = checked_words(words)
    options = changed(suited_options(model) if options is None else options, settings)
    pipeline = open_model(model, device)
    segmenter: FindWords = PromptSegmenter(pipeline, options)
    record: dict[str, Any] = {"model": pipeline.name, "words": names, "axis": axis}
    record["grounding"] = grounding and digest([grounding])
    if grounding is not None:
        head, taught = load_head(grounding)
        taught = dataclasses.replace(
            taught, draws=options.draws, seed=options.seed, windows=options.windows
        )
        segmenter = GroundedSegmenter(pipeline, head, taught)
    record |= {
        k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(options).items()
    }
    labels = {0: "background", **dict(enumerate(names, start=1))}
    writer = CaseWriter(
        output,
        segments_of(labels),
        Algorithm(pipeline.name[-64:], "prompted"),
        record,
        formats,
        save_members,
        overwrite,
    )

    def do(case: CaseInput) -> None:
        wanted = writer.to_write(case)
        if wanted is None:
            return
        with progress(case.id, "slice", brief=True) as show:
            found = find_words(case, segmenter, names, axis, show)
        slices = {
            class_slug(name): {"found": n, "of": found.of}
            for name, n in zip(names, found.slices, strict=True)
        }
        further = {"found_in_slices": slices}
        writer.write(case, found.case, wanted, pipeline.device, _warnings(found, names), further)

    with found_cases(parse_inputs(inputs), output) as (cases, failed):
        errors = one_by_one(cases, failed, output, do, "prompt")
    return {name: str(error) for name, error in errors.items()}


def open_model(model: str, device: str) -> TextToImage:
    """Load a text-to-image model, on a GPU in half precision.

    Args:
        model: Folder in the ``diffusers`` format, bundle with such a model, or name on a hub.
        device: Name of a torch device, or ``auto``.

    Raises:
        InputError: the model cannot be used.
        UsageError: the device cannot be used, or the extra ``text`` is not installed.
    """
    place = checked_device(device)
    dtype = torch.float16 if place.type == "cuda" else torch.float32
    bundle = _bundle_of(model)
    loaded = load_pipeline((bundle and bundle.pipeline) or model, place, dtype=dtype)
    loaded.name = model
    return loaded


def suited_options(model: str, **changes: Any) -> PromptOptions:
    """Options of finding words with a model: as its bundle recommends, else the defaults.

    Args:
        model: Model as for ``open_model``.
        changes: Fields of ``PromptOptions`` -> values that replace theirs; None leaves a field
            unchanged.

    Raises:
        InputError: the bundle cannot be read.
        UsageError: a field does not exist, or a value is not allowed.
    """
    bundle = _bundle_of(model)
    options = PromptOptions()
    if bundle is not None:
        options = bundle.parser("prompt").get_parsed_content("options")
    return changed(options, {name: v for name, v in changes.items() if v is not None})


def _bundle_of(model: str) -> Bundle | None:
    """The bundle that a model's name or folder stands for, if one does."""
    shipped = [bundle.name for bundle in list_bundles()]
    found = load_bundle(model) if model in shipped else Bundle(Path(model))
    return found if found.pipeline else None


def _warnings(found: FoundWords, names: Sequence[str]) -> list[str]:
    return [
        f"'{name}' was found nowhere"
        for name, slices in zip(names, found.slices, strict=True)
        if not slices
    ]


def checked_words(words: Sequence[str]) -> list[str]:
    """Words without stray spaces.

    Raises:
        UsageError: there is no word, a word is empty, or two words would have the same files.
    """
    names = [" ".join(word.split()) for word in words]
    if not names or not all(names):
        raise UsageError(
            "the words", "are missing", 'Name a structure to find, such as "left kidney"'
        )
    slugs = [class_slug(name) for name in names]
    if len(set(slugs)) < len(slugs):
        raise UsageError("the words", f"are alike: {', '.join(names)}", "Name each thing once")
    return names
