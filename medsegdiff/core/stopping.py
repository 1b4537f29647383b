"""Level 0: SIGTERM and Ctrl-C end work in order: files are closed, temporary ones removed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end.

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(f"stopped by {self.signal.name}")

    @property
    def exit_code(self) -> int:
        """Exit code by which shells and schedulers know that the signal ended the process."""
        return 128 + int(self.signal)


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """A context in which the first SIGTERM or SIGINT raises ``Stopped`` in the main thread.

    A second one, while files are being closed, has its usual effect. In other threads than the
    main one the context changes nothing.

    Raises:
        Stopped: a signal came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def stop(number: int, _: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise Stopped(number)

    for number in SIGNALS:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
