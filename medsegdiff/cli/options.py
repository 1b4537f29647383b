"""The options and arguments that several commands share, each written once.

An option that is a key of the bundle's configuration carries a :class:`BundleKey`. The command
hands all of them on as one mapping, :func:`given`, so that such an option is written in one file.
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

FORMATS_HELP = f"Any of {', '.join(OUTPUT_FORMATS)}, with commas. Else as the bundle says."
"""Help of the option ``--format``."""


@dataclass(frozen=True)
class BundleKey:
    """Marks an option that stands for a key of a bundle's configuration.

    Attributes:
        name: of the key; empty: the parameter's own.
        read: makes the key's value of what was typed; None: it is the value.
    """

    name: str = ""
    read: Callable[[Any], Any] | None = None


def given(command: Callable[..., None], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a bundle's configuration that the user gave, with their values.

    What was not given is left out, so that the bundle says it: None, and a flag that is not set.

    Args:
        command: whose annotations mark the options, with a :class:`BundleKey`.
        arguments: names of the command's parameters -> values; ``settings`` are those of ``--set``.

    Raises:
        UsageError: a value that cannot be read, or a key that is given twice.
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
            raise UsageError(f"--set {key}", "says the same as an option", "Leave one of them out")
    return found | further


def parse_formats(text: str) -> list[str]:
    """Reads a list of file formats.

    Raises:
        UsageError: one is not known.

    >>> parse_formats("nifti,dicom-seg")
    ['nifti', 'dicom-seg']
    """
    names = [name.lower() for name in parse_words(text)]
    for name in names or [text]:
        if name not in OUTPUT_FORMATS:
            raise UsageError("--format", f"{name!r} is not a format", closest(name, OUTPUT_FORMATS))
    return list(dict.fromkeys(names))


def parse_words(text: str) -> list[str]:
    """Words between commas, without blanks around them.

    >>> parse_words("left kidney, liver,")
    ['left kidney', 'liver']
    """
    return [word.strip() for word in text.split(",") if word.strip()]


def parse_levels(text: str) -> tuple[float, ...]:
    """Numbers between commas.

    Raises:
        UsageError: one is none.

    >>> parse_levels("0.1,0.3")
    (0.1, 0.3)
    """
    try:
        return tuple(float(word) for word in parse_words(text))
    except ValueError as error:
        rule = f"must be numbers with commas, not {text!r}"
        raise UsageError("--levels", rule, "Give for instance 0.1,0.3") from error


# --- of all commands ------------------------------------------------------------------------------

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Explain what is done.")]
Debug = Annotated[bool, typer.Option("--debug", help="On an error, show the traceback.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, or one such as cuda:1.")]

# --- what a command works on ----------------------------------------------------------------------

_BUNDLE = "A bundle's folder, or the name of one we ship."
_DATA = "A dataset.json, its folder, a known name, or NAME=FOLDER."

BundleArgument = Annotated[str, typer.Argument(metavar="BUNDLE", help=_BUNDLE)]
BundleName = Annotated[str, typer.Option(help=_BUNDLE)]
DataArgument = Annotated[str, typer.Argument(metavar="DATA", help=_DATA)]
Data = Annotated[str, typer.Option(help=_DATA)]
Output = Annotated[Path, typer.Option(help="Gets a folder for each case.")]
Model = Annotated[
    str, typer.Option(help="A saved diffusers pipeline: folder, bundle, or name on the hub.")
]
Axis = Annotated[
    Literal["axial", "coronal", "sagittal"], typer.Option(help="Plane of a volume's slices.")
]

# --- keys of a bundle's configuration -------------------------------------------------------------

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a value of the bundle; can be repeated."
    ),
]
Members = Annotated[
    int | None,
    BundleKey(),
    typer.Option(min=1, help="Masks drawn for each case. Else as the bundle says."),
]
Steps = Annotated[
    int | None, BundleKey(), typer.Option(min=1, help="Denoising steps. Else as the bundle says.")
]
Seed = Annotated[
    int | None,
    BundleKey(),
    typer.Option(min=0, help="The same seed gives the same result. Else as the bundle says."),
]
Guidance = Annotated[
    float | None,
    BundleKey(),
    typer.Option(help="Towards what is asked for: a mask, a class. Else as the bundle says."),
]
HeldOut = Annotated[
    int | None,
    BundleKey("fold"),
    typer.Option(min=0, help="The fold that is held out. Else as the bundle says."),
]
Calibration = Annotated[
    CalibrationUse | None,
    BundleKey(),
    typer.Option(help="Whether the bundle's calibration is applied. Else as the bundle says."),
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
    bool, BundleKey(), typer.Option("--overwrite", help="Do again what is done, such as cases.")
]
Caption = Annotated[
    str | None,
    BundleKey("template"),
    typer.Option("--caption", help="The text around the words, which stand at {}."),
]
Attended = Annotated[
    float | None,
    BundleKey(),
    typer.Option(help="Least attention that a word has to draw to be there; 0: none."),
]
