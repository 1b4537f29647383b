"""Level 0: MLflow waits seconds for a server that does not answer, not minutes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 5
"""Time in which a server or database has to answer."""


@contextmanager
def briefly() -> Iterator[None]:
    """A context in which MLflow waits seconds for a server that does not answer, not minutes."""
    settings = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(SECONDS),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update({name: before[name] or value for name, value in settings.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
