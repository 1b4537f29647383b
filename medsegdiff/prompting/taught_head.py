"""The job of ``medsegdiff ground``: trains a grounding head with a data set's masks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medsegdiff.core.errors import InputError
from medsegdiff.core.progress import progress
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.manifest import Case, Manifest, datalist, load_manifest
from medsegdiff.data.transforms import load
from medsegdiff.prompting.changes import changed
from medsegdiff.prompting.grounded import Example, TeachingOptions, save_head, teach
from medsegdiff.prompting.intensities import as_picture
from medsegdiff.prompting.prompted_case import Axis, picture_chain, slices_of
from medsegdiff.prompting.prompted_data import open_model, suited_options

logger = logging.getLogger(__name__)


def ground(
    data: str | Path,
    model: str,
    output: Path,
    options: TeachingOptions | None = None,
    *,
    fold: int = 0,
    without: Sequence[str] = (),
    axis: Axis = "axial",
    device: str = "auto",
    **settings: Any,
) -> Path:
    """Train a head with the masks of all cases outside the held-out fold, and write it.

    Args:
        data: Description of the data set, or a known name; the names of its labels are the words.
        model: Folder in the ``diffusers`` format, bundle with such a model, or name on a hub.
        output: Path of the file to write.
        options: Options of training; None for the defaults, with the text and the layers that the
            model's bundle recommends.
        fold: Number of the fold that is held out.
        without: Names of labels whose masks are not used.
        axis: Plane of the slices of volumes.
        device: Name of a torch device, or ``auto``.
        settings: Fields of the options -> values that replace theirs.

    Raises:
        InputError: data or model cannot be used, or no mask is left to learn from.
        UsageError: a setting is unknown.
    """
    if options is None:
        suited = suited_options(model)
        options = TeachingOptions(
            template=suited.template, layers=suited.layers, absolute=suited.absolute
        )
    options = changed(options, settings)
    manifest = load_manifest(data)
    pipeline = open_model(model, device)
    training = manifest.split(fold)[0]
    examples = [
        example for case in training for example in examples_of(case, manifest, axis, without)
    ]
    if not any(example.masks for example in examples):
        raise InputError(manifest.name, "has no mask to learn from", "Leave out fewer labels")
    with progress("ground", "step") as show:
        head = teach(pipeline, examples, options, show)
    output.parent.mkdir(parents=True, exist_ok=True)
    save_head(output, head, options, pipeline.name)
    return output


def examples_of(
    case: Case, manifest: Manifest, axis: Axis, without: Sequence[str]
) -> list[Example]:
    """The slices of a case that show a structure, with the masks of the majority of raters."""
    chain = picture_chain(CaseInput(case.id, case.images), manifest.labels, manifest.raters)
    item = load(chain, datalist([case])[0])
    image, label = (item[key].as_tensor() for key in ("image", "label"))
    pictures = slices_of(as_picture(image), axis)
    labels = slices_of(label.mode(dim=0, keepdim=True).values, axis)
    found = []
    for picture, marks in zip(pictures, labels[:, 0], strict=True):
        there = [k for k in manifest.labels if k and (marks == k).any()]
        there = [k for k in there if manifest.labels[k] not in without]
        if there or len(pictures) == 1:
            texts = tuple((manifest.labels[k].lower(),) for k in there)
            found.append(Example(picture, texts, tuple(marks == k for k in there)))
    return found
