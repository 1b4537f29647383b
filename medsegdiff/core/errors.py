"""Errors that users can act on: each names what is at fault, the rule, and the remedy."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec


class InputError(Exception):
    """An input of the user that cannot be used: a file, folder, case or option.

    Args:
        subject: File, folder, case or option that is at fault.
        rule: Text that says what was expected of it and what came instead.
        remedy: Text that says what the user can do about it.
    """

    def __init__(self, subject: object, rule: str, remedy: str) -> None:
        super().__init__(subject, rule, remedy)
        self.subject, self.rule, self.remedy = str(subject), rule, remedy

    def __str__(self) -> str:
        return f"{self.subject}: {self.rule}. {self.remedy}"


class UsageError(InputError):
    """The command itself is wrong (an unknown option, name or key): exit code 2."""


def reason_of(error: BaseException) -> str:
    """The reason of an error in one line, without the file's name, which may be a patient's.

    >>> reason_of(InputError("doe.nii", "is empty", "Get it again"))
    'is empty. Get it again'
    >>> reason_of(FileNotFoundError(2, "No such file", "doe.nii"))
    'FileNotFoundError: No such file'
    """
    if isinstance(error, InputError):
        return f"{error.rule}. {error.remedy}"
    words = getattr(error, "strerror", None) or str(error)
    return f"{type(error).__name__}: {words}".strip().split("\n")[0]


@contextmanager
def needs_extra(subject: str, package: str, extra: str) -> Iterator[None]:
    """A context in which an optional package is imported, one that comes with an extra of this one.

    Args:
        subject: Name of the feature that needs the package, for the message.
        package: Name of the optional package.
        extra: Name of this package's extra that installs it.

    Raises:
        InputError: the package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise _missing(subject, package, extra) from error


def check_extra(subject: str, package: str, extra: str) -> None:
    """Refuse, before any work is done, what needs an optional package that is not installed.

    Args:
        subject: Name of the feature that needs the package, for the message.
        package: Name of the optional package, as it is imported.
        extra: Name of this package's extra that installs it.

    Raises:
        InputError: the package is not installed.
    """
    if find_spec(package) is None:
        raise _missing(subject, package, extra)


def _missing(subject: str, package: str, extra: str) -> InputError:
    rule = f"needs the package {package}, which is not installed"
    return InputError(subject, rule, f"Install it: pip install 'medsegdiff[{extra}]'")


@contextmanager
def surfacing_input_errors() -> Iterator[None]:
    """A context that unwraps an ``InputError`` which a library wrapped in its own exceptions.

    MONAI's transforms and configurations wrap whatever is raised inside them, and name it as the
    cause.

    Raises:
        InputError: one was raised within, wrapped or not; other exceptions pass unchanged.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__
        if cause is None or cause is error:
            raise
        raise cause from None


def in_words(error: BaseException) -> str:
    """The first cause of an error, with its type, in one line."""
    return reason_of(_first(error))


def place_of(error: BaseException) -> str:
    """The traceback of an error's first cause, without its message, which may hold patient data."""
    return "".join(traceback.format_tb(_first(error).__traceback__))


def _first(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
