"""Masks from a few labelled cases: what ``medsegdiff label-efficient`` does."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from monai.transforms import Compose

from medsegdiff.bundle.bundle import Bundle, device_change, load_bundle
from medsegdiff.cases.segmenter import CaseSegmenter
from medsegdiff.core.atomic_files import digest, write_json
from medsegdiff.core.errors import InputError, UsageError, surfacing_input_errors
from medsegdiff.core.peak_memory import peak_memory_mb
from medsegdiff.core.types import OutputFormat
from medsegdiff.data.manifest import Case, Manifest, datalist, load_manifest
from medsegdiff.data.transforms import load
from medsegdiff.evaluation.folder import evaluate
from medsegdiff.few_label.fitted_file import FITTED, load_fitted, save_fitted
from medsegdiff.few_label.inferer import FewLabelInferer
from medsegdiff.few_label.learn_from_few import FewLabelLearner, FittedPerceptrons, Item
from medsegdiff.models.image_diffusion import ImageDiffusion
from medsegdiff.training.run import check_labels

logger = logging.getLogger(__name__)

RECORD = "few_labels.json"
REPORT = "report"


class FewLabelMarker:
    """Learns from the labelled cases of a data set, marks other images, and compares them.

    Args:
        bundle: Bundle of the network.
        network: Diffusion model of images, with trained weights, on its device.
        learner: Learner of the perceptrons.
        preprocessing: MONAI chain from ``{"case", "image"}`` to the network's input.
        teaching: Chain for ``image`` and ``label`` of the cases that teach, to plain tensors.
        augmentation: Random chain over both; None: no augmentation.
        window: Size of the images that the network was trained on, in voxels.
        mirror_axes: Spatial axes along which an image is seen mirrored, too.
        output: Folder for a folder of each case, the perceptrons, the record and the report.
        data: Description of the data, or a known name; None where nothing is learned.
        fold: Number of the fold whose cases do not teach.
        labelled: Number of cases that teach, drawn by the learner's seed; None: all.
        cases: Names of the cases that teach, with commas, instead.
        fitted: Perceptrons of an earlier run, instead of learning.
        formats: Formats of the files of each case.
        save_members: Whether each perceptron's mask is written, too.
        overwrite: Whether complete cases are done again.

    Raises:
        InputError: the data cannot be read or do not suit the bundle.
        UsageError: the cases that teach are given twice, or are not there.
    """

    def __init__(
        self,
        bundle: Bundle,
        network: ImageDiffusion,
        learner: FewLabelLearner,
        preprocessing: Compose,
        teaching: Compose,
        augmentation: Compose | None,
        window: Sequence[int],
        mirror_axes: Sequence[int],
        output: str | Path,
        data: str | Path | None,
        fold: int = 0,
        labelled: int | None = None,
        cases: str | None = None,
        fitted: str | Path | None = None,
        formats: Sequence[OutputFormat] = ("nifti",),
        save_members: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.bundle, self.network, self.learner = bundle, network, learner
        self.preprocessing, self.teaching, self.augmentation = preprocessing, teaching, augmentation
        self.window, self.mirror_axes, self.output = window, mirror_axes, Path(output)
        self.formats, self.save_members, self.overwrite = formats, save_members, overwrite
        self.fitted = None if fitted is None else Path(fitted)
        self.manifest = None if data is None else load_manifest(data)
        self.data = data
        if self.manifest is not None:
            check_labels(self.manifest, bundle)
        self.teaching_cases: list[Case] = []
        if self.fitted is None:
            if self.manifest is None:
                remedy = "Give data to learn from, or fitted to apply what was learned"
                raise UsageError("data", "is missing", remedy)
            pool = self.manifest.split(fold)[0]
            self.teaching_cases = teaching_cases(pool, labelled, cases, learner.seed)
        elif labelled is not None or cases is not None:
            rule = "cannot be used with fitted, whose cases are known"
            raise UsageError("labelled and cases", rule, "Leave one of them out")

    def run(self, inputs: Sequence[str | Path] | str | None = None) -> dict[str, str]:
        """Learn, mark, compare.

        Args:
            inputs: Images to mark, as ``medsegdiff segment`` takes them; None: all cases of the
                data that did not teach.

        Returns:
            Failed input or case -> reason. The others are compared with their references, if some
            have one, in ``report/``.

        Raises:
            InputError: the cases that teach cannot be used.
            UsageError: there is nothing to mark.
        """
        if not inputs and self.manifest is None:
            raise UsageError("inputs", "there is none to mark", "Name images, or give data")
        learned, taught = self._learned()
        inferer = FewLabelInferer(
            learned.features,
            learned.mlps,
            self.window,
            self.mirror_axes,
            {"fitted_hash": digest([self.fitted or self.output / FITTED])},
        )
        segmenter = CaseSegmenter(
            self.bundle,
            self.network,
            self.preprocessing,
            inferer,
            self.output,
            self.formats,
            self.save_members,
            self.overwrite,
            calibration="off",
            config="label_efficient",
        )
        if inputs:
            listed = [inputs] if isinstance(inputs, str) else inputs
            return segmenter.segment_inputs(listed)
        manifest = cast(Manifest, self.manifest)
        others = [case for case in manifest.cases if case.id not in taught]
        if not others:
            raise UsageError(manifest.name, "all cases teach", "Name images to mark")
        failures = segmenter.segment_cases(others)
        if any(case.labels and case.id not in failures for case in others):
            failures |= evaluate(str(self.data), self.output, self.output / REPORT)
        return failures

    def _learned(self) -> tuple[FittedPerceptrons, list[str]]:
        """Perceptrons and the names of the cases that they learned from."""
        if self.fitted is not None:
            return load_fitted(self.fitted, self.network, self.bundle)
        manifest = cast(Manifest, self.manifest)
        names = [case.id for case in self.teaching_cases]
        path = self.output / FITTED
        if path.exists() and not self.overwrite:
            learned, before = load_fitted(path, self.network, self.bundle)
            if before == names and learned.features.seed == self.learner.seed:
                logger.info("%s is there: not learned again", path)
                return learned, names
            rule = "was learned from other cases or with another seed"
            raise InputError(path, rule, "Allow to overwrite, or choose another output folder")
        started = time.perf_counter()
        items = [self._item(item) for item in datalist(self.teaching_cases)]
        classes = len(manifest.labels)
        learned = self.learner.learn(self.network, items, classes, self.augmentation)
        self.output.mkdir(parents=True, exist_ok=True)
        save_fitted(path, learned, self.bundle, names)
        record: dict[str, Any] = {
            "bundle": self.bundle.name,
            "bundle_version": str(self.bundle.metadata.get("version", "")),
            "data": manifest.name,
            "cases": names,
            "seed": self.learner.seed,
            **learned.record,
            "peak_memory_mb": peak_memory_mb(),
        }
        record["seconds"]["all"] = time.perf_counter() - started
        write_json(self.output / RECORD, record)
        logger.info("learned from %d cases: %s", len(names), path)
        return learned, names

    def _item(self, item: dict[str, Any]) -> Item:
        """Image and label map of a case that teaches.

        Raises:
            InputError: it has several annotations, or more axes than the network.
        """
        loaded = load(self.teaching, item)
        image, label = (torch.as_tensor(loaded[key]) for key in ("image", "label"))
        if len(label) != 1 or image.ndim != 1 + len(self.window):
            rule = (
                f"must have one annotation and {len(self.window)} axes to teach, not {len(label)}"
            )
            raise InputError(item["case"], f"{rule} and {image.ndim - 1}", "Choose other cases")
        return image.float(), label


def teaching_cases(
    pool: Sequence[Case], labelled: int | None, names: str | None, seed: int
) -> list[Case]:
    """The cases that teach.

    Args:
        pool: Labelled cases outside the fold.
        labelled: Number of cases, drawn by the seed; None: all.
        names: Names of the cases instead, with commas between.
        seed: Seed of the drawing; a smaller number gives a subset of a larger one.

    Raises:
        UsageError: both are given, there are not so many, or a name is unknown.
    """
    if labelled is not None and names is not None:
        raise UsageError("labelled and cases", "say the same twice", "Leave one of them out")
    if names is not None:
        known = {case.id: case for case in pool}
        wanted = [name.strip() for name in names.split(",") if name.strip()]
        missing = [name for name in wanted if name not in known]
        if missing or not wanted:
            rule = f"names no labelled case outside the fold: {', '.join(missing) or names!r}"
            raise UsageError("cases", rule, f"Some are {', '.join(list(known)[:3])}")
        return [known[name] for name in dict.fromkeys(wanted)]
    drawn = list(pool)
    random.Random(seed).shuffle(drawn)
    if labelled is not None and not 1 <= labelled <= len(drawn):
        rule = f"must be 1 to {len(drawn)}, the labelled cases outside the fold, not {labelled}"
        raise UsageError("labelled", rule, "Choose another number")
    return drawn[:labelled]


def label_efficient(
    bundle: str | Path | Bundle,
    output: str | Path,
    *,
    inputs: Sequence[str | Path] = (),
    data: str | Path | None = None,
    device: str = "auto",
    **settings: Any,
) -> dict[str, str]:
    """Learn from a few labelled cases, or apply what was learned, and write the files of others.

    Args:
        bundle: Name, path or bundle with the configuration ``configs/label_efficient``.
        output: Folder for a folder of each case, ``few_labels.pt``, ``few_labels.json``,
            ``report/``.
        inputs: Images to mark; none: all cases of the data that do not teach.
        data: Description of the data whose labelled cases teach, or a known name.
        device: Name of a torch device, or ``auto``.
        settings: Keys of the configuration -> values, such as ``labelled=5`` or ``seed=1``.

    Returns:
        Failed input or case -> reason.

    Raises:
        InputError: the bundle or the data cannot be used.
        UsageError: settings that are unknown or do not go together, or the device cannot be used.
    """
    own = {"output_dir": str(output), "dataset_dir": None if data is None else str(data)}
    changes = {**settings, **own, **device_change(device)}
    parser = load_bundle(bundle).parser("label_efficient", changes)
    with surfacing_input_errors():
        marker = cast(FewLabelMarker, parser.get_parsed_content("marker"))
    return marker.run(inputs)
