"""Level 0: silence logs and warnings of libraries that would show a patient's DICOM headers."""

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
    """A context in which ``LIBRARIES`` log nothing below CRITICAL and give no warnings.

    It holds for all threads.

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
