"""The worker of :mod:`medsegdiff.data.dicom.decoder`, which may fail without harm to its caller.

It answers with a plane for each frame. The first pixels that it cannot decode end it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels import iter_pixels
from pydicom.uid import JPEGExtended12Bit

from medsegdiff.core.serving import Send, serve
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


def answer(request: dict[str, Any], send: Send) -> None:
    """Send the planes that a request asks for.

    Args:
        request: Dictionary with the path of a ``file`` and the ``numbers`` of frames.
        send: Function that sends each.

    Raises:
        Exception: pixels cannot be decoded, do not fit the header, or need more memory.
    """
    file = Path(request["file"])
    dataset = open_dicom(file)
    shape = int(dataset.Rows), int(dataset.Columns)
    for plane in decoded(dataset, request["numbers"], file):
        send({}, plane.reshape(shape))


if __name__ == "__main__":
    serve(answer)
