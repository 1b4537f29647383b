"""Greatest resident memory of this process."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path


def peak_memory_mb() -> float:
    """Greatest resident memory so far, or since the last :func:`forget_peak_memory`, in MiB."""
    with suppress(OSError):
        told = Path("/proc/self/status").read_text().splitlines()
        for line in told:
            if line.startswith("VmHWM"):
                return round(int(line.split()[1]) / 1024.0, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024.0 if sys.platform != "darwin" else 1024.0**2), 1)


def forget_peak_memory() -> None:
    """Count the greatest memory from now on, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
