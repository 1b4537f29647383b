"""Common parts of all commands: error messages, progress, and the parsing of ``--set``."""

from __future__ import annotations

import ast
import difflib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from medsegdiff.bundle.trusted_bundles import trusting
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.core.progress import tracked
from medsegdiff.core.stopping import Stopped, stopping_on_signals

T = TypeVar("T")


class Command(TyperCommand):
    """Turns an error into one line and an exit code, unless ``--debug`` asks for the traceback.

    ``--trust`` holds for all bundles that the command uses. SIGTERM and Ctrl-C end it in order, so
    that unpacked files of patients are removed.
    """

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        try:
            with stopping_on_signals(), trusting(ctx.params.get("trust", False)):
                return super().invoke(ctx)
        except Stopped as stop:
            typer.echo(f"medsegdiff: {stop}; files that are complete are kept", err=True)
            raise typer.Exit(stop.exit_code) from None
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
            if text:  # it is empty if the help was printed, for want of a command
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
    """Sets the level of the package's log, and hides what libraries say unless ``verbose``.

    Progress is shown if the level of the logger ``medsegdiff`` is INFO or lower.
    """
    logger = logging.getLogger("medsegdiff")
    logger.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    logger.handlers = [RichHandler(console=stderr(), show_path=False, show_level=False)]
    logger.propagate = False
    if not verbose:
        warnings.simplefilter("ignore")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")


def refuse_missing(
    bundle: str | None = None, config: str = "", data: str | None = None, folder: Path | None = None
) -> None:
    """Refuses missing inputs before the import of libraries, which takes seconds.

    Args:
        bundle: Folder or name of the bundle.
        config: Name of the configuration that the bundle must have.
        data: Description of a data set, its folder, or a known name.
        folder: Folder of predictions.

    Raises:
        InputError: the data, the folder or the configuration does not exist.
        UsageError: the bundle does not exist.
    """
    from medsegdiff.bundle.bundle import load_bundle
    from medsegdiff.data.named_sets import find_set

    if bundle is not None:
        load_bundle(bundle).config(config)
    if data is not None:
        find_set(data)
    if folder is not None and not folder.is_dir():
        raise InputError(folder, "no such folder", "Give the output folder of medsegdiff segment")


def stderr() -> Console:
    """The console on standard error, for all output except results."""
    return Console(stderr=True)


def progress(description: str) -> Callable[[Iterable[T]], Iterable[T]]:
    """A wrapper of a sequence that shows progress, unless the command is quiet."""
    return lambda items: tracked(items, description, "step")


def exit_with(failures: Mapping[str, str], done: str) -> None:
    """Ends a command over several cases: lists failures, and exits with 1 if there are any.

    Args:
        failures: Failed case -> reason.
        done: Text to print if nothing failed.
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
    """Advice that names the known word closest to a wrong one, or all known words.

    >>> closest("nifty", ["nifti", "nrrd"])
    'Did you mean nifti?'
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"Did you mean {near[0]}?" if near else f"Known are {', '.join(sorted(known))}"


def parse_overrides(settings: Iterable[str]) -> dict[str, Any]:
    """Reads ``key=value`` settings; a value is a Python or JSON literal, or else a string.

    Args:
        settings: Settings such as ``train#trainer#max_epochs=5``.

    Raises:
        UsageError: a setting has no ``=`` or no key.

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
