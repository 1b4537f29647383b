"""The options and arguments that several commands share, each written once.

An option that is a key of the bundle's configuration is marked with a :class:`BundleKey`. The
command passes all of them on as one mapping, from :func:`given`, so that such an option is defined
in one file only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from medsegdiff.cases.output_formats import OUTPUT_FORMATS
from medsegdiff.cli.common import closest, parse_overrides
from medsegdiff.core.errors import UsageError
from medsegdiff.core.types import CalibrationUse

FORMATS_HELP = (
    f"File formats, separated by commas: {', '.join(OUTPUT_FORMATS)}. Default: as in the bundle."
)
"""Help of the option ``--format``."""


@dataclass(frozen=True)
class BundleKey:
    """Marks an option that stands for a key of a bundle's configuration.

    Attributes:
        name: Name of the key; empty for the parameter's own name.
        read: Function from the typed value to the key's value; None if they are the same.
    """

    name: str = ""
    read: Callable[[Any], Any] | None = None


def given(command: Callable[..., None], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a bundle's configuration that the user gave, with their values.

    Options that were not given (None, or a flag that is not set) are left out, so that the bundle's
    values are used.

    Args:
        command: Command whose annotations mark the options with a :class:`BundleKey`.
        arguments: Names of the command's parameters -> values; ``settings`` are those of ``--set``.

    Raises:
        UsageError: a value cannot be read, or a key is given twice.
    """
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(command, include_extras=True).items():
        value = arguments.get(name)
        for mark in getattr(hint, "__metadata__", ()):
            if isinstance(mark, BundleKey) and value is not None and value is not False:
                found[mark.name or name] = mark.read(value) if mark.read else value
    further = parse_overrides(arguments.get("settings") or [])
    for key in further:
        if key in found:
            raise UsageError(
                f"--set {key}", "sets the same key as an option", "Leave one of them out"
            )
    return found | further


def parse_formats(text: str) -> list[str]:
    """Reads a list of file formats.

    Raises:
        UsageError: a format is unknown.

    >>> parse_formats("nifti,dicom-seg")
    ['nifti', 'dicom-seg']
    """
    names = [name.lower() for name in parse_words(text)]
    for name in names or [text]:
        if name not in OUTPUT_FORMATS:
            raise UsageError("--format", f"{name!r} is not a format", closest(name, OUTPUT_FORMATS))
    return list(dict.fromkeys(names))


def parse_words(text: str) -> list[str]:
    """Reads words separated by commas, without spaces around them.

    >>> parse_words("left kidney, liver,")
    ['left kidney', 'liver']
    """
    return [word.strip() for word in text.split(",") if word.strip()]


def parse_levels(text: str) -> tuple[float, ...]:
    """Reads numbers separated by commas.

    Raises:
        UsageError: a word is not a number.

    >>> parse_levels("0.1,0.3")
    (0.1, 0.3)
    """
    try:
        return tuple(float(word) for word in parse_words(text))
    except ValueError as error:
        rule = f"must be numbers separated by commas, not {text!r}"
        raise UsageError("--levels", rule, "Give for instance 0.1,0.3") from error


# --- options of all commands ----------------------------------------------------------------------

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only results and errors.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print explanations and libraries' warnings.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Let a bundle from elsewhere run, whose configurations are programs; remembered.",
    ),
]
Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda, or one such as cuda:1.")]

# --- inputs and outputs of commands ---------------------------------------------------------------

_BUNDLE = "Folder of a bundle, or name of a shipped one."
_DATA = "A dataset.json, a folder of images and labels, a known name, or NAME=FOLDER."

BundleArgument = Annotated[str, typer.Argument(metavar="BUNDLE", help=_BUNDLE)]
BundleName = Annotated[str, typer.Option(help=_BUNDLE)]
DataArgument = Annotated[str, typer.Argument(metavar="DATA", help=_DATA)]
Data = Annotated[str, typer.Option(help=_DATA)]
Output = Annotated[Path, typer.Option(help="Output folder, with a folder for each case.")]
Model = Annotated[
    str, typer.Option(help="Saved diffusers pipeline: folder, bundle, or name on the hub.")
]
Axis = Annotated[
    Literal["axial", "coronal", "sagittal"], typer.Option(help="Plane of a volume's slices.")
]

# --- predictions of other programs ----------------------------------------------------------------

OtherClasses = Annotated[
    str | None,
    typer.Option(
        metavar="NAME=N[+N],...",
        help="Maps that each class is made of, where other programs name them otherwise.",
    ),
]
OtherModel = Annotated[
    str | None, typer.Option("--model", help="Name of the model, where the files do not say it.")
]
OtherLayout = Annotated[
    Literal["auto", "nnunet", "totalsegmentator", "maps", "masks", "members"],
    typer.Option(help="Layout of other programs' predictions."),
]

# --- keys of a bundle's configuration -------------------------------------------------------------

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change any other setting; can be repeated."),
]
Members = Annotated[
    int | None,
    BundleKey(),
    typer.Option(min=1, help="Number of masks drawn for each case. Default: as in the bundle."),
]
Steps = Annotated[
    int | None,
    BundleKey(),
    typer.Option(min=1, help="Number of denoising steps. Default: as in the bundle."),
]
Seed = Annotated[
    int | None,
    BundleKey(),
    typer.Option(min=0, help="Seed of the random numbers. Default: as in the bundle."),
]
Guidance = Annotated[
    float | None,
    BundleKey(),
    typer.Option(help="Weight of guidance by the given mask or class. Default: as in the bundle."),
]
HeldOut = Annotated[
    int | None,
    BundleKey("fold"),
    typer.Option(min=0, help="Number of the held-out fold. Default: as in the bundle."),
]
Calibration = Annotated[
    CalibrationUse | None,
    BundleKey(),
    typer.Option(help="Use of the bundle's calibration. Default: as in the bundle."),
]
Formats = Annotated[
    str | None,
    BundleKey(read=parse_formats),
    typer.Option("--format", help=FORMATS_HELP),
]
SaveMembers = Annotated[
    bool, BundleKey(), typer.Option("--save-members", help="Write each member's mask, too.")
]
Overwrite = Annotated[
    bool,
    BundleKey(),
    typer.Option("--overwrite", help="Replace earlier results, such as complete cases."),
]
Caption = Annotated[
    str | None,
    BundleKey("template"),
    typer.Option("--caption", help="Text around the words, with {} in their place."),
]
Attended = Annotated[
    float | None,
    BundleKey(),
    typer.Option(help="Least attention to a word that is present; 0: no such test."),
]
