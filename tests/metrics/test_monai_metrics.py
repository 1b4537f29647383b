"""The metrics give what the functions give, over batches, and serve as a key metric."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.metrics import CumulativeIterationMetric

from medsegdiff.metrics.calibration_error import region_of_interest, reliability
from medsegdiff.metrics.monai_metrics import (
    CollectiveInsight,
    ExpectedCalibrationError,
    GeneralizedEnergyDistance,
    HungarianMatchedIoU,
    SampleNCC,
    SampleSetMetric,
    UncertaintyErrorAUPRC,
    UncertaintyErrorAUROC,
)
from medsegdiff.metrics.sample_sets import sample_set_metrics
from medsegdiff.metrics.uncertainty import error_auprc, error_auroc

SHAPES = [(7, 6), (5, 4, 6)]
SETS = [GeneralizedEnergyDistance, HungarianMatchedIoU, CollectiveInsight, SampleNCC]


@pytest.mark.parametrize("metric", SETS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("as_list", [False, True])
def test_sample_sets_of_batches(
    metric: type[SampleSetMetric], shape: tuple[int, ...], as_list: bool
) -> None:
    rng = np.random.default_rng(0)
    samples, raters = rng.integers(0, 3, (3, 4, *shape)), rng.integers(0, 3, (3, 2, *shape))
    both = torch.from_numpy(samples), torch.from_numpy(raters)
    collected = metric(classes=(1, 2))
    for part in (slice(0, 2), slice(2, 3)):
        s, r = (list(x[part]) if as_list else x[part] for x in both)
        assert collected(s, r).shape == (part.stop - part.start, 1)
    pairs = zip(samples, raters, strict=True)
    expected = [sample_set_metrics(s, r, (1, 2))[metric.measure][0] for s, r in pairs]
    np.testing.assert_allclose(collected.get_buffer()[:, 0], expected, rtol=1e-6)
    assert collected.aggregate().item() == pytest.approx(np.mean(expected))
    collected.reset()
    assert math.isnan(collected.aggregate().item())


def ece_roi(p: np.ndarray, share: np.ndarray) -> float:
    return reliability(p, share, region_of_interest(share, 1)).ece


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("metric", "function"),
    [
        (ExpectedCalibrationError(voxels=1), ece_roi),
        (UncertaintyErrorAUROC(), error_auroc),
        (UncertaintyErrorAUPRC(), error_auprc),
    ],
)
def test_maps_of_each_class(
    metric: CumulativeIterationMetric,
    function: Callable[[np.ndarray, np.ndarray], float],
    shape: tuple[int, ...],
) -> None:
    rng = np.random.default_rng(0)
    p, y = rng.random((2, 3, *shape)), (rng.random((2, 3, *shape)) < 0.2).astype(float)
    y[0, 1] = 0.0  # undefined: no reference, no error
    metric.reset()
    found = metric(torch.from_numpy(p), torch.from_numpy(y))
    expected = [[function(p[b, c], y[b, c]) for c in range(3)] for b in range(2)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.isnan(expected).sum() == 1
    assert metric.aggregate().item() == pytest.approx(np.nanmean(expected))


def test_a_metric_without_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="y is needed"):
        GeneralizedEnergyDistance()(torch.zeros(1, 2, 3, 3))


def test_a_metric_serves_the_handler_of_a_bundle() -> None:
    """As ``key_val_metric`` does, on items of a batch that were taken apart."""
    described = {
        "_target_": "monai.handlers.IgniteMetricHandler",
        "metric_fn": {
            "_target_": "medsegdiff.metrics.monai_metrics.GeneralizedEnergyDistance",
            "classes": [1, 2],
        },
        "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
    }
    parser = ConfigParser({"imports": ["$import monai"], "handler": described})
    parser.get_parsed_content("imports")
    labels = torch.randint(0, 3, (2, 3, 6, 6), generator=torch.Generator().manual_seed(0))
    engine = Engine(lambda _, batch: [{"pred": item, "label": item} for item in batch])
    parser.get_parsed_content("handler").attach(engine, "val_ged2")
    engine.run([labels, labels], max_epochs=1)
    assert engine.state.metrics["val_ged2"] == pytest.approx(0.0, abs=1e-6)
    assert engine.state.metric_details["val_ged2"].shape == (4, 1)
