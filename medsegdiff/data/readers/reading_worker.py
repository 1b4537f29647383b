"""The worker of :mod:`medsegdiff.data.readers.apart`, which may fail without harm to its caller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.core.serving import Send, serve

_ALPHA = {"LA": "L", "La": "L", "PA": "P"}
"""Modes of one channel with transparency -> mode without transparency."""


def itk_header(path: str, send: Send) -> None:
    """Size, channels, directions, spacing (mm) and origin (mm) of NRRD or MetaImage, as ITK has it.

    Raises:
        RuntimeError: ITK cannot read the header.
    """
    reader = _itk_reader(path)
    found = {
        "size": reader.GetSize(),
        "channels": reader.GetNumberOfComponents(),
        "directions": reader.GetDirection(),
        "spacing": reader.GetSpacing(),
        "origin": reader.GetOrigin(),
    }
    send(found, None)


def itk_values(path: str, send: Send) -> None:
    """Values (Z, Y, X[, channels]), or with any other number of axes.

    Raises:
        RuntimeError: ITK cannot read them.
    """
    import SimpleITK as sitk

    image = _itk_reader(path).Execute()  # lives as long as the view of its values
    send({}, sitk.GetArrayViewFromImage(image))


def _itk_reader(path: str) -> Any:
    """A reader that has read the header."""
    import SimpleITK as sitk  # only these formats need it

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetFileName(path)
    reader.ReadImageInformation()
    return reader


def picture(path: str, send: Send) -> None:
    """Pixels (rows, columns[, 3]) of a picture, upright, with the colours of its palette."""
    _picture(path, send, by_index=False)


def mask_picture(path: str, send: Send) -> None:
    """Pixels (rows, columns[, 3]) of a picture, upright; of a palette the indices."""
    _picture(path, send, by_index=True)


def _picture(path: str, send: Send, by_index: bool) -> None:
    from PIL import Image, ImageOps  # only these formats need it

    # From a stream: Pillow maps a named raw TIFF into memory, and then rotates it wrongly.
    with Path(path).open("rb") as stream, Image.open(stream) as image:
        pages = getattr(image, "n_frames", 1)
        one = pages == 1
        pixels = np.asarray(_plain(ImageOps.exif_transpose(image), by_index)) if one else None
    send({"pages": pages}, pixels)


def _plain(image: Any, by_index: bool) -> Any:
    """The picture with one channel, or with red, green and blue."""
    if image.mode in _ALPHA:
        image = image.getchannel(_ALPHA[image.mode])
    if image.mode == "P" and not by_index:
        red, green, blue = np.array(image.getpalette("RGB")).reshape(-1, 3).T
        return image.convert("L" if (red == green).all() and (green == blue).all() else "RGB")
    plain = image.mode in ("1", "L", "I", "F", "P", "RGB") or image.mode.startswith("I;16")
    return image if plain else image.convert("RGB")


READERS: dict[str, Callable[[str, Send], None]] = {
    "itk_header": itk_header,
    "itk_values": itk_values,
    "picture": picture,
    "mask_picture": mask_picture,
}
"""What can be asked for."""


def answer(request: dict[str, Any], send: Send) -> None:
    """Answer a request, or say why not.

    Args:
        request: Dictionary with the ``path`` of a file and ``what`` of ``READERS``.
        send: Function that sends the answer.
    """
    try:
        READERS[request["what"]](request["path"], send)
    except Exception as error:  # whatever a damaged file makes of a library
        send({"error": _reason(error)}, None)


def _reason(error: Exception) -> str:
    """The last line of an error, which gives its cause; of ITK's, the others name its own files."""
    lines = str(error).strip().split("\n")
    return lines[-1] or type(error).__name__


if __name__ == "__main__":
    serve(answer)
