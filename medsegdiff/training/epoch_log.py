"""Log the metrics of each epoch in the package's own log."""

from __future__ import annotations

import logging

from ignite.engine import Engine

logger = logging.getLogger(__name__)


def log_metrics(engine: Engine) -> None:
    """Log an engine's metrics in one line; for ``StatsHandler``'s ``epoch_print_logger``."""
    figures = ", ".join(f"{name} {value:.4f}" for name, value in engine.state.metrics.items())
    logger.info("epoch %d: %s", engine.state.epoch, figures)
