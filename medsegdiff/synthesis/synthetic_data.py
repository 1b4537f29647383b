"""New cases from a bundle's model, with masks: what ``medsegdiff synthesize`` does."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from monai.transforms import Compose, RandomizableTransform
from torch import Tensor

from medsegdiff.bundle.bundle import Bundle, device_change, load_bundle
from medsegdiff.core.atomic_files import digest
from medsegdiff.core.errors import InputError, UsageError, surfacing_input_errors
from medsegdiff.core.progress import progress
from medsegdiff.core.types import Geometry
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.manifest import Case, datalist, load_manifest
from medsegdiff.data.transforms import load
from medsegdiff.segmentation.segmented_case import segment_case
from medsegdiff.synthesis.draw import Pair, PairDrawer
from medsegdiff.synthesis.drawn_case_files import CHART, RECORD, SyntheticCases
from medsegdiff.synthesis.pair_filter import Criteria, PairFilter
from medsegdiff.training.run import check_labels
from medsegdiff.writers.nifti import write_nifti

logger = logging.getLogger(__name__)

FindMask = Callable[[Pair], Tensor]
"""(pair) -> (*spatial) class numbers that are found in its image."""


class Synthesizer:
    """Draws cases until enough of them pass the filter.

    Args:
        bundle: Bundle of the network.
        drawer: Drawer of pairs, with the network.
        data: Description of the data that the network was trained on, or a known name.
        fold: Number of the fold that was held out in training.
        preprocessing: MONAI chain from a case to ``image`` (C, *size) and ``label`` (1, *size).
        spacing: Size of its voxels, in mm.
        output: Folder of the new data set.
        criteria: Limits of the filter.
        segmenter: Name or folder of the bundle whose masks drawn ones have to agree with, or None.
        masks: Description of the data whose masks, deformed, are given to a network that draws
            images alone; None: of the training cases.
        deformation: Random deformation of those masks, key ``label``.
        attempts: Largest number of pairs drawn for each one that is wanted.
        overwrite: Whether to start again where ``output`` holds cases.

    Raises:
        UsageError: masks for a network that draws them itself.
        InputError: the data cannot be read, or ``output`` holds something else.
    """

    def __init__(
        self,
        bundle: Bundle,
        drawer: PairDrawer,
        data: str | Path,
        fold: int,
        preprocessing: Compose,
        spacing: Sequence[float],
        output: str | Path,
        criteria: Criteria,
        segmenter: str | None = None,
        masks: str | None = None,
        deformation: RandomizableTransform | None = None,
        attempts: int = 4,
        overwrite: bool = False,
    ) -> None:
        if masks and not drawer.given_masks:
            rule = f"cannot be used: {bundle.name} draws masks itself"
            raise UsageError("masks", rule, "Leave it out, or train the bundle with draws=image")
        self.bundle, self.drawer, self.deformation = bundle, drawer, deformation
        self.attempts, self.segmenter = attempts, segmenter
        manifest = load_manifest(data)
        check_labels(manifest, bundle)
        self.training = manifest.split(fold)[0]
        self.items = [load(preprocessing, item) for item in datalist(self.training)]
        self.given = self._masks(masks, preprocessing) if drawer.given_masks else []
        self.classes = {v: n for v, n in manifest.labels.items() if v}
        self.spacing = tuple(float(s) for s in spacing)
        self.filter = PairFilter(
            torch.stack([torch.as_tensor(item["image"]) for item in self.items]),
            torch.stack([torch.as_tensor(item["label"])[0] for item in self.items]),
            list(self.classes),
            float(np.prod(self.spacing)) / 1000.0,
            criteria,
        )
        if overwrite:
            remove_cases(Path(output))
        self.cases = SyntheticCases(
            Path(output),
            {
                "bundle": bundle.name,
                "bundle_version": str(bundle.metadata.get("version", "")),
                "bundle_hash": digest([bundle.config("synthesize"), bundle.weights()]),
                "data": manifest.name,
                "fold": fold,
                "masks": load_manifest(masks).name if masks else None,
                "segmenter": segmenter and load_bundle(segmenter).name,
                "seed": drawer.seed,
                "steps": drawer.steps,
                "guidance": drawer.guidance,
                "agreement": criteria.agreement,
                "volume_margin": criteria.volume_margin,
                "copy_percentile": criteria.copy_percentile,
            },
            manifest,
            self.spacing,
            f"{bundle.name} {bundle.metadata.get('version', '')}".strip(),
        )

    def run(self, count: int) -> dict[str, Any]:
        """Draw until ``count`` cases are there; what is there already counts.

        Returns:
            The record, as in ``synthesis.json``.

        Raises:
            UsageError: a count below 1.
            InputError: too few pairs pass the filter. Those that do are written.
        """
        if count < 1:
            raise UsageError("count", f"must be 1 or more, not {count}", "Give for instance 20")
        find_mask = self._mask_finder()
        learned = self.filter.described(self.classes)
        content = self.cases.save(learned)
        with progress("synthesize", "case") as show:
            show(content["kept"], count)
            while content["kept"] < count and content["drawn"] < self.attempts * count:
                first = content["drawn"]
                self._draw(range(first, first + self.drawer.batch), count, find_mask)
                content = self.cases.save(learned)
                show(content["kept"], count)
        if content["kept"] < count:
            told = ", ".join(f"{n} by {rule}" for rule, n in content["dropped"].items() if n)
            rule = f"only {content['kept']} of {count} cases are fit, of {content['drawn']} drawn"
            remedy = "Train longer, or change criteria or attempts in configs/synthesize.yaml"
            raise InputError(self.cases.folder, f"{rule} (dropped: {told})", remedy)
        logger.info("%d drawn, %d kept, in %s", content["drawn"], count, self.cases.folder)
        return content

    def _mask_finder(self) -> FindMask | None:
        """A function that segments a pair's image; None without a segmenter.

        Raises:
            UsageError: the segmenter finds other classes than the drawn masks have.
        """
        if self.segmenter is None:
            return None
        bundle = load_bundle(self.segmenter)
        known = {value for value in bundle.labels if value}
        if known != set(self.classes):
            rule = f"finds the classes {sorted(known)}, not {sorted(self.classes)} of the cases"
            raise UsageError("segmenter", rule, "Choose another, or none")
        return mask_finder(bundle, self.drawer, self.spacing)

    def _draw(self, numbers: range, count: int, find_mask: FindMask | None) -> None:
        """Draw, judge and add a batch of pairs, those beyond the count left out."""
        if self.drawer.given_masks:
            pairs = self.drawer.from_masks(numbers, [self._deformed(n) for n in numbers])
        else:
            pairs = self.drawer.together(numbers, self.filter.images.shape[2:])
        found = [find_mask(p) if find_mask and p.label.any() else None for p in pairs]
        for number, pair, verdict in zip(
            numbers, pairs, self.filter.judge(pairs, found), strict=True
        ):
            if len(self.cases.kept) < count:
                self.cases.add(number, pair, verdict, self.training[verdict.nearest].id)

    def _masks(self, masks: str | None, preprocessing: Compose) -> list[Tensor]:
        """(1, *size) class numbers of the cases whose masks are given."""
        items = self.items
        if masks:
            cases: list[Case] = [case for case in load_manifest(masks).cases if case.labels]
            items = [load(preprocessing, item) for item in datalist(cases)]
        if not items:
            raise InputError(masks, "has no labelled case", "Give a data set with masks")
        return [torch.as_tensor(item["label"]) for item in items]

    def _deformed(self, number: int) -> Tensor:
        """(*size) the mask for a pair, which depends on the seed and its number alone."""
        random = np.random.default_rng([self.drawer.seed, number])
        label = self.given[int(random.integers(len(self.given)))]
        if self.deformation is None:
            return label[0]
        self.deformation.set_random_state(int(random.integers(2**31)))
        return torch.as_tensor(self.deformation({"label": label})["label"])[0]


def mask_finder(bundle: Bundle, drawer: PairDrawer, spacing: Sequence[float]) -> FindMask:
    """A function that segments a pair's image as ``medsegdiff segment`` would, with four members.

    Args:
        bundle: Bundle for segmentation.
        drawer: Drawer on whose device the segmenter runs.
        spacing: Size of the pairs' voxels, in mm.
    """
    device = next(drawer.network.parameters()).device
    changes = {"members": 4, "calibration": "off", **device_change(str(device))}
    parser = bundle.parser("inference", changes)
    parts = [parser.get_parsed_content(p) for p in ("network", "preprocessing", "inferer")]

    def find(pair: Pair) -> Tensor:
        shape = tuple(pair.label.shape)
        geometry = Geometry(shape, np.diag([*spacing, *[1.0] * (4 - len(spacing))]))
        with tempfile.TemporaryDirectory() as folder:
            paths = tuple(Path(folder) / f"{channel}.nii" for channel in range(len(pair.image)))
            for path, channel in zip(paths, pair.image.numpy(), strict=True):
                write_nifti(path, channel, geometry, dtype="float32")
            segmented = segment_case(CaseInput("pair", paths), *parts)
        return torch.from_numpy(np.array(segmented.mask)).reshape(shape)

    return find


def remove_cases(folder: Path) -> None:
    """Remove the cases that an earlier run has written; nothing else.

    Raises:
        InputError: the folder holds no such record.
    """
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / RECORD).is_file():
        rule = f"holds no {RECORD}, so it is not of an earlier run"
        raise InputError(folder, rule, "Choose another output folder")
    for name in (RECORD, "dataset.json", CHART):
        (folder / name).unlink(missing_ok=True)
    for name in ("imagesTr", "labelsTr"):
        for path in (folder / name).glob("synthetic_*.nii.gz"):
            path.unlink()
        shutil.rmtree(folder / name) if not any((folder / name).glob("*")) else None


def synthesize(
    bundle: str | Path | Bundle,
    data: str | Path,
    output: str | Path,
    *,
    count: int,
    device: str = "auto",
    **settings: Any,
) -> dict[str, Any]:
    """Draw new cases with a bundle's model and write them as a data set.

    Args:
        bundle: Name, path or bundle with the configuration ``configs/synthesize``.
        data: Description of the data that it was trained on, or a known name.
        output: Folder of the new data set.
        count: Number of cases wanted.
        device: Name of a torch device, or ``auto``.
        settings: Keys of the configuration -> values, such as ``steps=20``; ``segmenter="none"``
            or None: drawn masks need not agree with a bundle's.

    Returns:
        The record, as in ``synthesis.json``.

    Raises:
        InputError: the bundle or the data cannot be used, or too few pairs pass the filter.
        UsageError: the device cannot be used, or a setting is unknown or cannot be used.
    """
    own = {"dataset_dir": str(data), "output_dir": str(output)}
    changes = {**settings, **own, **device_change(device)}
    if changes.get("segmenter") == "none":
        changes["segmenter"] = None
    parser = load_bundle(bundle).parser("synthesize", changes)
    with surfacing_input_errors():
        synthesizer = cast(Synthesizer, parser.get_parsed_content("synthesizer"))
    return synthesizer.run(count)
