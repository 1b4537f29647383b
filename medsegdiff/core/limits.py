"""Level 0: bounds of what an input may take, so that none takes the whole machine.

Each has a default that no usual image reaches, and an environment variable that sets another.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from medsegdiff.core.errors import InputError, UsageError

FREE_GIB = 1.0
"""GiB up to which a compressed file may grow without a question."""


@dataclass(frozen=True)
class Limit:
    """A bound with a setting.

    Attributes:
        variable: Name of the environment variable that sets another value.
        default: Value without it; None: half of the machine's memory in GiB.
    """

    variable: str
    default: float | None

    @property
    def value(self) -> float:
        """The bound, greater than 0.

        Raises:
            UsageError: the environment variable is not a number greater than 0.
        """
        text = os.environ.get(self.variable, "").strip()
        if not text:
            return _half_of_memory() if self.default is None else self.default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not value > 0:
            rule = f"must be a number greater than 0, not {text!r}"
            raise UsageError(self.variable, rule, "Set another, or unset it")
        return value

    def refusal(self, subject: object, rule: str) -> InputError:
        """The error for an input beyond the bound.

        Args:
            subject: Name of the input.
            rule: Text that says what it takes, such as ``would take 80 GiB``.
        """
        remedy = f"If you trust it, set {self.variable} to a greater number"
        return InputError(subject, f"{rule}, where the limit is {self.value:.4g}", remedy)


SIZE = Limit("MEDSEGDIFF_MAX_GIB", None)
"""GiB of one image's values, or of one answer of a server."""
INFLATION = Limit("MEDSEGDIFF_MAX_INFLATION", 250.0)
"""Bytes that a byte of a compressed file may become, beyond ``FREE_GIB``."""
EXTENT_MM = Limit("MEDSEGDIFF_MAX_EXTENT_MM", 10_000.0)
"""Length in mm of an image along each of its axes."""
FETCHING_RATE = Limit("MEDSEGDIFF_FETCHING_RATE", 1024.0)
"""Least bytes a second that a server must send."""
DECODING_SECONDS = Limit("MEDSEGDIFF_DECODING_SECONDS", 60.0)
"""Seconds in which a compressed frame of DICOM must be decoded; or a picture, NRRD or MetaImage
read, with a second more for each MiB of the file."""
DECODING_GIB = Limit("MEDSEGDIFF_DECODING_GIB", 4.0)
"""GiB of memory that the worker may take for it, besides twice the file and twice its values."""


def check_size(subject: object, bytes_needed: float) -> None:
    """Refuse an image that would not fit, before anything is allocated for it.

    Args:
        subject: Name of the input.
        bytes_needed: Size of its values in bytes.

    Raises:
        InputError: the size is beyond ``SIZE``.

    >>> check_size("scan.nii", 1e18)
    Traceback (most recent call last):
    medsegdiff.core.errors.InputError: scan.nii: would take 9.313e+08 GiB, where the limit is ...
    """
    gib = bytes_needed / 2**30
    if gib > SIZE.value:
        raise SIZE.refusal(subject, f"would take {gib:.4g} GiB")


def check_inflation(subject: object, packed: int, unpacked: float) -> None:
    """Refuse a compressed file that becomes far larger than images do.

    Args:
        subject: Name of the input.
        packed: Size of the compressed file in bytes.
        unpacked: Size of its content in bytes, or of what was read of it so far; of an image the
            number of its values, since a mask of wide numbers shrinks a thousandfold.

    Raises:
        InputError: the content is beyond ``FREE_GIB`` and ``INFLATION``.
    """
    ratio = unpacked / max(packed, 1)
    if unpacked > FREE_GIB * 2**30 and ratio > INFLATION.value:
        gib = unpacked / 2**30
        rule = f"becomes {gib:.3g} GiB or more when it is unpacked, {ratio:.4g} times its size"
        raise INFLATION.refusal(subject, rule)


def _half_of_memory() -> float:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**31
    except (AttributeError, ValueError, OSError):  # not on every system
        return 16.0
