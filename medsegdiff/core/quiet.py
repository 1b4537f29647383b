"""Level 0: libraries that would tell what DICOM headers say of a patient keep silent."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

LIBRARIES = ("dicomweb_client", "highdicom", "pydicom", "retrying", "urllib3")
"""Their logs and warnings show names, identifiers, addresses of studies, headers of requests."""

_lock = threading.Lock()
_within = 0
_undo = ExitStack()


@contextmanager
def silenced() -> Iterator[None]:
    """Within, in any thread, these libraries log nothing below CRITICAL and warn of nothing.

    >>> with silenced():
    ...     logging.getLogger("pydicom").isEnabledFor(logging.ERROR)
    False
    """
    global _within
    with _lock:
        _within += 1
        if _within == 1:
            _silence()
    try:
        yield
    finally:
        with _lock:
            _within -= 1
            if _within == 0:
                _undo.close()


def _silence() -> None:
    _undo.enter_context(warnings.catch_warnings())
    for name in LIBRARIES:
        warnings.filterwarnings("ignore", module=name)
        logger = logging.getLogger(name)
        _undo.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)
