"""The REST calls of 3D Slicer's extension MONAILabel, by the client that it ships with.

Run in the environment of MONAI Label, with the server's address, a folder for what is answered,
and the calls as JSON, each the arguments of one method of the client. Prints the answers as JSON.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from monailabel.client import MONAILabelClient


def main() -> None:
    """Make the calls of the command line."""
    address, folder, calls = sys.argv[1:]
    client = MONAILabelClient(address, tmpdir=folder)
    listed = enumerate(json.loads(calls))
    print(json.dumps([answer(client, Path(folder), number, call) for number, call in listed]))


def answer(client: MONAILabelClient, folder: Path, number: int, call: dict[str, Any]) -> Any:
    """What the method gives; a file of an image keeps its place under a name of its own."""
    try:
        given = getattr(client, call.pop("call"))(**call)
    except Exception as error:
        return {"error": str(error)}
    if not isinstance(given, tuple):
        return given
    image, params = given
    if image:
        image = shutil.move(image, folder / f"{number}.nii.gz")
    return {"image": image and str(image), "params": params}


if __name__ == "__main__":
    main()
