"""The measures of this package as MONAI metrics, for a training loop or a bundle.

Each computes one value an image (and class), keeps them, and averages those that are defined. In a
bundle a metric is the ``metric_fn`` of a ``monai.handlers.IgniteMetricHandler``, which may be a
``key_val_metric``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from monai.metrics import CumulativeIterationMetric
from numpy.typing import NDArray
from torch import Tensor

from medsegdiff.metrics.calibration_error import region_of_interest, reliability
from medsegdiff.metrics.sample_sets import sample_set_metrics
from medsegdiff.metrics.uncertainty import error_auprc, error_auroc


class MeanOfDefined(CumulativeIterationMetric):
    """Base of metrics that collect values (B, C), of which NaN is undefined."""

    def aggregate(self) -> Tensor:
        """Scalar: the mean over all values that are not NaN; NaN if there is none."""
        values = self.get_buffer()
        return torch.tensor(torch.nan) if values is None else values.nanmean()


class SampleSetMetric(MeanOfDefined):
    """One of the measures of sampled masks against those of raters.

    Called with ``y_pred``, label maps (B, N, *spatial) of N samples, and ``y``, those of M raters
    (B, M, *spatial). Gives (B, 1), over all classes: see ``sample_set_metrics``.

    Args:
        classes: Class numbers of the foreground.
    """

    measure: ClassVar[str]

    def __init__(self, classes: Sequence[int] = (1,)) -> None:
        super().__init__()
        self.classes = tuple(classes)

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        pairs = zip(_arrays(y_pred), _arrays(y), strict=True)
        found = [sample_set_metrics(s, r, self.classes)[self.measure][0] for s, r in pairs]
        return torch.tensor(found, device=y_pred.device)[:, None]


class GeneralizedEnergyDistance(SampleSetMetric):
    """GED^2 in [0, 2], lower is better (Kohl et al., 2018)."""

    measure = "ged2"


class HungarianMatchedIoU(SampleSetMetric):
    """HM-IoU in [0, 1] (Kohl et al., 2019)."""

    measure = "hm_iou"


class CollectiveInsight(SampleSetMetric):
    """CI in [0, 1] (Rahman et al., 2023)."""

    measure = "ci"


class SampleNCC(SampleSetMetric):
    """S_NCC in [-1, 1] (Baumgartner et al., 2019)."""

    measure = "s_ncc"


class MapMetric(MeanOfDefined):
    """A function of two maps, of each image and channel by itself.

    Called with ``y_pred`` and ``y``, both (B, C, *spatial); gives (B, C).

    Args:
        function: Function of ``y_pred`` and ``y``, both (*spatial), that gives a value, or NaN.
    """

    def __init__(self, function: Callable[[NDArray[Any], NDArray[Any]], float]) -> None:
        super().__init__()
        self.function = function

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        images = zip(_arrays(y_pred), _arrays(y), strict=True)
        found = [[self.function(p, r) for p, r in zip(*maps, strict=True)] for maps in images]
        return torch.tensor(found, device=y_pred.device)


class ExpectedCalibrationError(MapMetric):
    """ECE in [0, 1] within the reference and a margin (Naeini et al., 2015).

    ``y_pred`` are probabilities of the foreground classes, ``y`` is 0 or 1 or the share of raters.
    A class that the reference lacks is undefined.

    Args:
        voxels: Margin of the region around the reference, in voxels.
    """

    def __init__(self, voxels: int = 5) -> None:
        def within_region(p: NDArray[Any], share: NDArray[Any]) -> float:
            return reliability(p, share, region_of_interest(share, voxels)).ece

        super().__init__(within_region)


class UncertaintyErrorAUROC(MapMetric):
    """AUROC in [0, 1] of uncertainty maps ``y_pred`` for wrong voxels, non-zero in ``y``."""

    def __init__(self) -> None:
        super().__init__(error_auroc)


class UncertaintyErrorAUPRC(MapMetric):
    """Average precision in [0, 1] of ``y_pred`` for wrong voxels, non-zero in ``y``."""

    def __init__(self) -> None:
        super().__init__(error_auprc)


def _arrays(batch: Tensor | None) -> NDArray[Any]:
    if batch is None:
        raise ValueError("y is needed beside y_pred.")
    return batch.cpu().numpy()
