"""The job of ``medsegdiff diffumask``: a data set drawn from words."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.core.atomic_files import read_json, write_json
from medsegdiff.core.errors import InputError
from medsegdiff.core.progress import progress
from medsegdiff.core.types import Geometry
from medsegdiff.data.manifest import class_slug
from medsegdiff.prompting.changes import changed
from medsegdiff.prompting.drawing import DrawOptions
from medsegdiff.prompting.pairs import DrawnPairs, PairOptions, draw_pairs
from medsegdiff.prompting.pipeline import TextToImage
from medsegdiff.prompting.prompted_data import checked_words, open_model, suited_options
from medsegdiff.writers.nifti import write_nifti

RECORD = "diffumask.json"


def diffumask(
    words: Sequence[str],
    model: str,
    output: Path,
    count: int,
    options: PairOptions | None = None,
    *,
    attributes: Sequence[str] = (),
    most: int = 3,
    attempts: int = 4,
    device: str = "auto",
    overwrite: bool = False,
    **settings: Any,
) -> Path:
    """Draw pictures of words with masks, and write them as a data set.

    Args:
        words: Words to draw; the k-th is class k.
        model: Folder in the ``diffusers`` format, bundle with such a model, or name on a hub.
        output: Folder of the data set.
        count: Number of pairs to keep.
        options: Options of drawing and keeping; None for the defaults, with words located as the
            model's bundle recommends.
        attributes: Words of which one or none, at random, is put before each thing.
        most: Greatest number of things in a picture.
        attempts: Greatest number of pictures drawn for each requested pair.
        device: Name of a torch device, or ``auto``.
        overwrite: Whether to replace an earlier drawn data set.
        settings: Fields of the options, such as ``drawing#steps`` -> values that replace theirs.

    Returns:
        Path of the ``dataset.json``.

    Raises:
        InputError: the folder holds something else, or too few pairs passed the checks; those that
            passed are written.
        UsageError: words are missing or alike, or a setting is unknown.
    """
    names = checked_words(words)
    options = changed(suited_pairs(model) if options is None else options, settings)
    if (output / "dataset.json").exists() and not (overwrite and read_json(output / RECORD)):
        raise InputError(output, "holds a data set", "Choose another folder, or add --overwrite")
    pipeline = open_model(model, device)
    captions = random_captions(names, attributes, count * attempts, most, options.seed)
    with progress("diffumask", "pair") as show:
        made = draw_pairs(pipeline, captions, names, count, options, show)
    path = _write(made, names, pipeline, output, options)
    if len(made.kept) < count:
        rule = f"kept {len(made.kept)} of {count} pairs; drew {made.drawn}, dropped {made.dropped}"
        raise InputError(
            output,
            rule,
            "Lower agreement or attended, allow unnamed words, or choose words that it can draw",
        )
    return path


def suited_pairs(model: str) -> PairOptions:
    """Options of drawing pairs with a model; words are located as its bundle recommends.

    Args:
        model: Model as for ``open_model``.
    """
    finding = suited_options(model)
    drawing = DrawOptions(
        layers=finding.layers, coarsest=finding.coarsest, propagation=finding.propagation
    )
    return PairOptions(drawing=drawing, finding=finding)


def random_captions(
    names: Sequence[str], attributes: Sequence[str], count: int, most: int, seed: int
) -> list[list[str]]:
    """Random captions: some of the names, each with one attribute or none, in a random order."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        chosen = rng.sample(list(names), rng.randint(1, min(most, len(names))))
        found.append([f"{rng.choice(['', *attributes])} {name}".strip() for name in chosen])
    return found


def _write(
    made: DrawnPairs, names: Sequence[str], model: TextToImage, output: Path, options: PairOptions
) -> Path:
    entries = []
    for number, pair in enumerate(made.kept):
        stem = f"drawn_{number:05d}"
        height, width = pair.label.shape
        geometry = Geometry((width, height), np.eye(4))
        files = f"imagesTr/{stem}.nii.gz", f"labelsTr/{stem}.nii.gz"
        image, label = pair.picture[0].numpy().T, pair.label.numpy().T
        write_nifti(output / files[0], image, geometry, dtype="float32", description=model.name)
        write_nifti(output / files[1], label, geometry, dtype="uint8", description=model.name)
        caption = options.finding.template.format(", ".join(pair.names))
        entries.append({"image": files[0], "label": files[1], "patient": stem, "caption": caption})
    described: dict[str, Any] = {
        "name": "drawn_" + "_".join(class_slug(name) for name in names),
        "description": "Pictures and masks drawn from words; nobody was scanned",
        "reference": f"generated by {model.name}",
        "licence": "that of the model's outputs",
        "tensorImageSize": "2D",
        "modality": {"0": "generated"},
        "labels": {str(k): name for k, name in enumerate(["background", *names])},
        "training": entries,
    }
    record = {"model": model.name, "drawn": made.drawn, "kept": len(made.kept)}
    write_json(output / RECORD, record | {"dropped": made.dropped, "options": asdict(options)})
    write_json(output / "dataset.json", described)
    return output / "dataset.json"
