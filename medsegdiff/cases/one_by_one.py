"""Processing of cases one by one: a failed case does not stop the others, and is reported."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from medsegdiff.core.atomic_files import write_json
from medsegdiff.core.errors import InputError, in_words, place_of, surfacing_input_errors
from medsegdiff.core.progress import tracked
from medsegdiff.data.case_input import CaseInput

logger = logging.getLogger(__name__)


def one_by_one(
    cases: Sequence[CaseInput],
    failures: Mapping[str, InputError],
    output: Path,
    do: Callable[[CaseInput], None],
    title: str,
) -> dict[str, InputError]:
    """Call a function with each case; a case that fails does not stop the others.

    Args:
        cases: Cases to process, in order.
        failures: Inputs that failed before -> the reason.
        output: Folder for ``failures.json``, which exists afterwards only if something failed.
        do: Function to call with each case.
        title: Title of the progress bar.

    Returns:
        Failed input or case -> error, ``failures`` included.
    """
    errors = dict(failures)
    output.mkdir(parents=True, exist_ok=True)
    for case in tracked(cases, title):
        try:
            with surfacing_input_errors():
                do(case)
        except InputError as error:
            errors[case.id] = error
        except Exception as error:  # any failure: the other cases are still processed
            logger.debug("%s failed:\n%s", case.id, place_of(error))
            errors[case.id] = InputError(case.id, in_words(error), "Add -v to see where")
    path = output / "failures.json"
    if errors:
        write_json(path, {name: str(error) for name, error in errors.items()})
    else:
        path.unlink(missing_ok=True)
    return errors


def raise_for_failures(failures: Mapping[str, str]) -> None:
    """End a MONAI workflow with an error if cases failed, after the others are done.

    Raises:
        InputError: some cases failed; the message gives the reason of each.
    """
    if failures:
        rule = f"could not be segmented: {'; '.join(failures.values())}"
        raise InputError(f"{len(failures)} inputs", rule, "The others are done")
