"""The worker of :mod:`medsegdiff.data.dicom.decoder`, which may fail without harm to its caller.

It reads requests from its standard input, a line of JSON each, and answers on its standard output:
for each plane a line with its type, and its bytes. The first pixels that it cannot decode end it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels import iter_pixels
from pydicom.uid import JPEGExtended12Bit

from medsegdiff.data.dicom.headers import open_dicom


def decoded(dataset: Any, numbers: Sequence[int], file: Path) -> Iterator[NDArray[Any]]:
    """The stored values (rows, columns) of frames, decoded in this process.

    GDCM reads JPEG of 12 bits, which pydicom refuses to ask it for.

    Raises:
        RuntimeError: no decoder can read them.
        DAMAGED: the data set is broken.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == JPEGExtended12Bit and int(dataset.BitsStored) > 8:
        yield from _twelve_bits(dataset, numbers, file)
    else:
        yield from iter_pixels(dataset, indices=list(numbers), raw=True)


def _twelve_bits(dataset: Any, numbers: Sequence[int], file: Path) -> Iterator[NDArray[Any]]:
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(file))
    if not reader.Read():
        raise RuntimeError("GDCM cannot read it")
    buffer = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
    signed = int(dataset.PixelRepresentation) == 1
    values = np.frombuffer(buffer, np.int16 if signed else np.uint16)
    if signed:  # the stored bits alone have a sign
        unused = 16 - int(dataset.BitsStored)
        values = (values << unused) >> unused
    frames = values.reshape(-1, int(dataset.Rows), int(dataset.Columns))
    yield from (frames[number] for number in numbers)


def serve(memory: int) -> None:
    """Answer requests until the input ends.

    Args:
        memory: Most memory in bytes that this process may take.

    Raises:
        Exception: pixels cannot be decoded, do not fit the header, or need more memory.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints is no answer
    _bound_memory(memory)
    for line in sys.stdin:
        request = json.loads(line)
        file = Path(request["file"])
        dataset = open_dicom(file)
        shape = int(dataset.Rows), int(dataset.Columns)
        for plane in decoded(dataset, request["numbers"], file):
            answers.write(plane.dtype.str.encode() + b"\n")
            answers.write(np.ascontiguousarray(plane).reshape(shape).tobytes())
            answers.flush()


def _bound_memory(size: int) -> None:
    try:
        import resource
    except ImportError:  # not on every system
        return
    with suppress(ValueError, OSError):
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        bound = size if most == resource.RLIM_INFINITY else min(size, most)
        resource.setrlimit(resource.RLIMIT_AS, (bound, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no patient in a dump


if __name__ == "__main__":
    serve(int(sys.argv[1]))
