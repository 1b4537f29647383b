"""Processing of cases one by one: a failed case does not stop the others, and is reported."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from medsegdiff.core.atomic_files import read_json, write_json
from medsegdiff.core.errors import InputError, in_words, place_of, surfacing_input_errors
from medsegdiff.core.folder_lock import folder_lock
from medsegdiff.core.progress import progress
from medsegdiff.data.case_input import CaseInput

logger = logging.getLogger(__name__)

Outcome = tuple[CaseInput, InputError | None]
Do = Callable[[CaseInput], None]
Engine = Callable[[Sequence[CaseInput], Do], Iterable[Outcome]]
"""Function that does all cases, in any order, and yields each with its error."""


def attempted(case: CaseInput, do: Do) -> InputError | None:
    """Call a function with a case; whatever fails becomes an error that names the case."""
    try:
        with surfacing_input_errors():
            do(case)
    except InputError as error:
        return error
    except Exception as error:  # any failure: the other cases are still processed
        logger.debug("%s failed:\n%s", case.id, place_of(error))
        return InputError(case.id, in_words(error), "Add -v to see where")
    return None


def in_turn(cases: Sequence[CaseInput], do: Do) -> Iterable[Outcome]:
    """Does the cases one after the other, in this process."""
    return ((case, attempted(case, do)) for case in cases)


def one_by_one(
    cases: Sequence[CaseInput],
    failures: Mapping[str, InputError],
    output: Path,
    do: Do,
    title: str,
    *,
    engine: Engine = in_turn,
    tell: Callable[[str, InputError | None], None] = lambda case, error: None,
    shared: bool = False,
) -> dict[str, InputError]:
    """Call a function with each case; a case that fails does not stop the others.

    Args:
        cases: Cases to process, in order.
        failures: Inputs that failed before -> the reason.
        output: Folder for ``failures.json``, which exists afterwards only if something failed.
        do: Function to call with each case.
        title: Title of the progress bar.
        engine: Function that calls it, here or elsewhere.
        tell: Function of each input or case, as it ends, and its error.
        shared: Whether other processes write other cases to the folder: their failures are kept.

    Returns:
        Failed input or case -> error, ``failures`` included.
    """
    errors = dict(failures)
    output.mkdir(parents=True, exist_ok=True)
    for name, error in failures.items():
        tell(name, error)
    with progress(title, "case") as show:
        show(0, len(cases))
        for done, (case, failed) in enumerate(engine(cases, do), start=1):
            if failed:
                errors[case.id] = failed
            tell(case.id, failed)
            show(done, len(cases))
    _write_failures(output, cases, errors, shared)
    return errors


def _write_failures(
    output: Path, cases: Sequence[CaseInput], errors: Mapping[str, InputError], shared: bool
) -> None:
    path = output / "failures.json"
    with folder_lock(output) if shared else nullcontext():
        before = read_json(path) if shared and path.exists() else {}
        kept = {name: text for name, text in before.items() if name not in {c.id for c in cases}}
        if failed := kept | {name: str(error) for name, error in errors.items()}:
            write_json(path, failed)
        else:
            path.unlink(missing_ok=True)


def raise_for_failures(failures: Mapping[str, str]) -> None:
    """End a MONAI workflow with an error if cases failed, after the others are done.

    Raises:
        InputError: some cases failed; the message gives the reason of each.
    """
    if failures:
        rule = f"could not be segmented: {'; '.join(failures.values())}"
        raise InputError(f"{len(failures)} inputs", rule, "The others are done")
