"""The job of ``medsegdiff adopt``: other programs' predictions become this package's cases."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from medsegdiff.cases.cohort_table import write_cohort_table
from medsegdiff.cases.one_by_one import one_by_one
from medsegdiff.cases.output_formats import chosen_formats
from medsegdiff.cases.overview import without_paths, write_overview
from medsegdiff.core.atomic_files import digest, read_json
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.core.quiet import silenced
from medsegdiff.core.types import OutputFormat
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.manifest import Manifest, class_slug, load_manifest, shorten
from medsegdiff.other_models.case_adopter import CaseAdopter
from medsegdiff.other_models.case_images import images_of_data, images_of_folder, without_images
from medsegdiff.other_models.chosen_classes import chosen_labels
from medsegdiff.other_models.own_calibration import calibration_of
from medsegdiff.other_models.predicted import Known, Predictions
from medsegdiff.other_models.prediction_layouts import LayoutName, found_predictions

logger = logging.getLogger(__name__)


@silenced()
def adopt(
    predictions: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    data: str | Path | None = None,
    images: str | Path | None = None,
    calibration: str | Path | None = None,
    guarantee: float | None = None,
    classes: Mapping[str, Sequence[int]] | None = None,
    model: str | None = None,
    layout: LayoutName = "auto",
    formats: Sequence[OutputFormat] = ("nifti",),
    save_members: bool = False,
    overwrite: bool = False,
    preview: bool = True,
) -> dict[str, str]:
    """Bring other programs' predictions to the files that ``segment`` writes of a case.

    Args:
        predictions: Folder of predictions; several are the members of an ensemble.
        output: Folder for a folder of each case.
        data: Description of the data set that the predictions are of, or a known name.
        images: Folder of the images, where there is no description. With neither, the grid of the
            predictions counts, and nothing is told of the intensities.
        calibration: Path of the model's calibration, see ``calibrate_other``; None: none.
        guarantee: Level in (0, 1) of the inner and outer masks and volumes to write, or None.
        classes: Name of a class -> numbers of the maps that it is the sum of; None: by name, or in
            their order where the predictions do not name them.
        model: Name of the model where the files do not say it; of a flat folder of nnU-Net its
            trainer, as in ``nnUNetTrainer__nnUNetPlans__3d_fullres``.
        layout: Name of the predictions' layout, or ``auto``.
        formats: Formats to write, besides the preview and the record.
        save_members: Whether to write the mask of each member, too.
        overwrite: Whether to write complete cases again.
        preview: Whether to write the preview of each case.

    Returns:
        Failed case -> reason; also written to ``failures.json`` if there are any.

    Raises:
        InputError: the predictions, the data or the calibration cannot be used.
        UsageError: an option is wrong.
    """
    if data is not None and images is not None:
        rule = "names the images, which the data set has already"
        raise UsageError("--images", rule, "Give --data or --images, not both")
    folders = [predictions] if isinstance(predictions, str | Path) else list(predictions)
    paths, output = [Path(one) for one in folders], Path(output)
    chosen_formats(formats)  # which refuses an unknown one
    manifest = None if data is None else load_manifest(data)
    given = images_of_folder(Path(images)) if images is not None else {}
    given = images_of_data(manifest) if manifest else given
    found = found_predictions(paths, _known(manifest, given, classes, model), layout)
    labels, channels = chosen_labels(
        found.model, manifest.labels if manifest else None, classes, paths[0]
    )
    path = None if calibration is None else Path(calibration)
    fitted, own_model = calibration_of(path, found.model, labels, guarantee)
    _tell(found, paths)
    cases, failures = _with_images(found, given, str(data or images or ""))
    adopter = CaseAdopter(
        output,
        found,
        own_model,
        labels,
        channels,
        manifest,
        bool(given),
        fitted,
        None if path is None else digest([path]),
        guarantee=guarantee,
        formats=formats,
        save_members=save_members,
        overwrite=overwrite,
        preview=preview,
    )
    errors = one_by_one(cases, failures, output, adopter, "adopt")
    ids = [case.id for case in cases]
    done = [name for name in ids if name not in errors]
    records = [read_json(output / name / f"{name}_run.json") for name in done]
    told = without_paths(errors, [*ids, *failures])
    write_overview(output, records, adopter.shown, labels, told)
    write_cohort_table(output, records, told)
    return {name: str(error) for name, error in errors.items()}


def _known(
    manifest: Manifest | None,
    given: Mapping[str, CaseInput],
    classes: Mapping[str, Sequence[int]] | None,
    model: str | None,
) -> Known:
    """What is known of the predictions from all else that the user gave."""
    if manifest is None:
        return Known(frozenset(given), tuple(map(class_slug, classes or ())), None, model)
    names = tuple(class_slug(name) for value, name in manifest.labels.items() if value)
    channels = len(manifest.labels) if classes is None else None
    return Known(frozenset(given), names, channels, model)


def _tell(found: Predictions, paths: Sequence[Path]) -> None:
    """Log what was found, and what had to be inferred."""
    where = ", ".join(path.name for path in paths)
    members = max(len(case.members) for case in found.cases.values())
    told = "%s: %s, %d cases by %s, %s"
    each = f"{members} members each" if members > 1 else "one map each"
    logger.info(told, where, found.layout, len(found.cases), found.model.name, each)
    for note in found.notes:
        logger.warning("%s: %s", where, note)


def _with_images(
    found: Predictions, given: Mapping[str, CaseInput], place: str
) -> tuple[list[CaseInput], dict[str, InputError]]:
    """The cases that have a prediction and an image, and those that fail for want of one."""
    if not given:
        files = [case.members[0].files[-1:] for case in found.cases.values()]
        alone = without_images(found.cases, files)
        return list(alone.values()), dict(found.failures)
    strangers = sorted(set(found.cases) - set(given))
    if len(strangers) == len(found.cases):
        rule = f"has no image of the predicted cases, which are {shorten(strangers)}"
        raise InputError(place, rule, f"Name them as the images are: {shorten(sorted(given))}")
    failures = dict(found.failures)
    for name in strangers:
        rule = f"was predicted, but there is no image of this name in {place}"
        failures[name] = InputError(name, rule, "Add the image, or remove the prediction")
    return [given[name] for name in found.cases if name in given], failures
