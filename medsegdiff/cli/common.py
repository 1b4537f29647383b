"""What all commands share: options, how errors look, how progress shows."""

from __future__ import annotations

import ast
import difflib
import logging
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import track
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from medsegdiff.cases.output_formats import OUTPUT_FORMATS
from medsegdiff.core.errors import InputError, UsageError

T = TypeVar("T")

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Explain what is done.")]
Debug = Annotated[bool, typer.Option("--debug", help="On an error, show the traceback.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, or one such as cuda:1.")]

FORMATS_HELP = f"Any of {', '.join(OUTPUT_FORMATS)}, with commas."
"""Of the option ``--format``."""


class Command(TyperCommand):
    """Turns an error into one line and an exit code, unless ``--debug`` asks for the traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, typer.TyperException):
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            raise _failure(error) from None


class Commands(TyperGroup):
    """Prints every error as one line on standard error; wrong usage exits with 2."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Parses, runs and exits."""
        extra["standalone_mode"] = False
        try:
            code = super().main(args, *rest, **extra)
        except typer.TyperException as error:
            text = " ".join(error.format_message().split())
            if text:  # without a command, the help was printed
                typer.echo(f"medsegdiff: error: {text}", err=True)
            code = error.exit_code
        except typer.Abort:
            code = 1
        sys.exit(code)


def _failure(error: Exception) -> typer.TyperException:
    if isinstance(error, InputError):
        text = str(error)
    elif isinstance(error, OSError) and error.filename is not None:
        remedy = "Check the path, your permissions and the space on the disk"
        text = f"{error.filename}: {error.strerror}. {remedy}"
    else:
        text = f"unexpected {type(error).__name__}: {error}. Run it with --debug to see where"
    failure = typer.TyperException(text)
    failure.exit_code = 2 if isinstance(error, UsageError) else 1
    return failure


def set_up(quiet: bool, verbose: bool) -> None:
    """Makes the package's log as talkative as was asked for, and hides libraries' warnings.

    Whatever shows progress looks at the level of the logger ``medsegdiff``: INFO shows it.
    """
    logger = logging.getLogger("medsegdiff")
    logger.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    logger.handlers = [RichHandler(console=stderr(), show_path=False, show_level=False)]
    logger.propagate = False
    if not verbose:
        warnings.simplefilter("ignore")


def stderr() -> Console:
    """A console for all that is not a result."""
    return Console(stderr=True)


def progress(description: str) -> Callable[[Iterable[T]], Iterable[T]]:
    """A wrapper of a sequence that shows how far it is, unless the command is quiet."""
    hidden = not logging.getLogger("medsegdiff").isEnabledFor(logging.INFO)

    def shown(items: Iterable[T]) -> Iterable[T]:
        return track(items, description, console=stderr(), disable=hidden, transient=True)

    return shown


def exit_with(failures: Mapping[str, str], done: str) -> None:
    """Ends a command over several cases: lists what failed and why, and exits with 1 if any did.

    Args:
        failures: case -> reason.
        done: what to say where nothing failed.
    """
    if not failures:
        if done:
            stderr().print(Text(done))
        return
    for case, reason in failures.items():
        line = " ".join(reason.split())
        subject = "" if line.startswith(case) else f"{case}: "
        typer.echo(f"medsegdiff: failed: {subject}{line}", err=True)
    raise typer.Exit(1)


def closest(word: str, known: Collection[str]) -> str:
    """Names the known word that is most like a wrong one, or all if none is.

    >>> closest("nifty", ["nifti", "nrrd"])
    'Did you mean nifti?'
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"Did you mean {near[0]}?" if near else f"Known are {', '.join(sorted(known))}"


def parse_overrides(settings: Iterable[str]) -> dict[str, Any]:
    """Reads ``key=value`` settings; a value is a Python or JSON literal, else a text.

    Args:
        settings: such as ``train#trainer#max_epochs=5``.

    Raises:
        UsageError: one is without ``=`` or a key.

    >>> parse_overrides(["train#trainer#max_epochs=5", "lr=1e-4", "amp=false", "name=a b"])
    {'train#trainer#max_epochs': 5, 'lr': 0.0001, 'amp': False, 'name': 'a b'}
    """
    overrides = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key.strip() and equals):
            raise UsageError(
                f"--set {setting}",
                "is not of the form key=value",
                "Write for instance --set train#trainer#max_epochs=5",
            )
        overrides[key.strip()] = _parse_value(value.strip())
    return overrides


def _parse_value(text: str) -> Any:
    words = {"true": True, "false": False, "null": None}
    if text in words:
        return words[text]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def parse_formats(text: str) -> tuple[str, ...]:
    """Reads a list of file formats.

    Raises:
        UsageError: one is not known.

    >>> parse_formats("nifti,dicom-seg")
    ('nifti', 'dicom-seg')
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    for name in names or [text]:
        if name not in OUTPUT_FORMATS:
            raise UsageError("--format", f"{name!r} is not a format", closest(name, OUTPUT_FORMATS))
    return tuple(dict.fromkeys(name for name in names))
