"""The checks of MONAI's model zoo on a bundle, one result each.

They follow the zoo's ``ci/verify_bundle.py``: files, version, metadata, properties of the
workflows, the network's input and output, TorchScript.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medsegdiff.bundle.bundle import WEIGHTS, load_bundle
from medsegdiff.bundle.checked_bundle import CheckedBundle, NotApplicableError
from medsegdiff.bundle.metadata_checks import (
    check_channels,
    check_keys_of_metadata,
    check_schema,
    check_version,
)
from medsegdiff.bundle.network_checks import check_network, check_torchscript, check_weights
from medsegdiff.core.errors import InputError, in_words

Outcome = Literal["passed", "failed", "not applicable"]

LARGEST_FILE = 25_000_000
"""Size in bytes above which the zoo wants a file listed in ``large_files.yml`` instead."""

EXEMPTIONS = "not_applicable"
"""Key of ``metadata.json``: checks that make no sense for the bundle -> why."""


@dataclass(frozen=True)
class CheckResult:
    """Result of one check.

    Attributes:
        name: Name of the check.
        outcome: Outcome of the check.
        reason: Rule that is broken with the remedy, or why the check does not apply; or empty.
    """

    name: str
    outcome: Outcome
    reason: str = ""


def validate(
    bundle: str | Path, *, schema: Path | None = None, online: bool = False
) -> Iterator[CheckResult]:
    """Check a bundle as MONAI's model zoo would, without a network unless that is wanted.

    A bundle from elsewhere has to be trusted for the checks of its network, which run its code.

    Args:
        bundle: Name or folder of the bundle.
        schema: Path of a JSON schema of ``metadata.json``; None: its keys alone are looked at.
        online: Whether MONAI may download the schema that the metadata name.

    Returns:
        Results, each as soon as it is there.

    Raises:
        InputError: there is no such bundle.
    """
    checked = CheckedBundle(load_bundle(bundle).root, schema, online)
    return (_result(name, check, checked) for name, check in CHECKS.items())


def _result(name: str, check: Callable[[CheckedBundle], None], of: CheckedBundle) -> CheckResult:
    try:
        exempt = of.metadata.get(EXEMPTIONS) if name in MAY_BE_EXEMPT else None
        if isinstance(exempt, Mapping) and exempt.get(name):
            return CheckResult(name, "not applicable", str(exempt[name]))
        check(of)
    except NotApplicableError as error:
        return CheckResult(name, "not applicable", str(error))
    except InputError as error:
        return CheckResult(name, "failed", str(error))
    except Exception as error:  # whatever the files of others lead to
        reason = f"{of.root}: the check ends with {in_words(error)}"
        return CheckResult(name, "failed", f"{reason}. Compare it with a bundle that ships")
    return CheckResult(name, "passed")


def check_files(of: CheckedBundle) -> None:
    """Refuse a bundle without licence, model card or configuration of logging.

    Raises:
        InputError: a file is missing or empty.
    """
    for name, remedy in (
        ("LICENSE", "Add the text of the licence, in a file without ending"),
        ("docs/README.md", "Add the model card: model, data, training, figures, use, limits"),
        ("configs/logging.conf", "Copy that of a bundle that ships"),
    ):
        path = of.root / name
        if not path.is_file() or not path.stat().st_size:
            raise InputError(path, "is missing or empty", remedy)


def check_weight_file(of: CheckedBundle) -> None:
    """Refuse a bundle without weights under the name that MONAI loads.

    Raises:
        InputError: there are none.
    """
    if not (of.root / WEIGHTS).is_file():
        raise InputError(of.root / WEIGHTS, "is missing", "Train the bundle, or copy weights there")


def check_sizes(of: CheckedBundle) -> None:
    """Refuse a large file that is not listed with the address to have it from.

    Raises:
        InputError: there is one.
    """
    listed = any((of.root / f"large_files.{end}").is_file() for end in ("yml", "yaml", "json"))
    for path in sorted((of.root / "models").rglob("*")):
        size = path.stat().st_size if path.is_file() else 0
        if size > LARGEST_FILE and not listed:
            rule = f"has {size / 1e6:.1f} MB, which is more than {LARGEST_FILE / 1e6:.0f}"
            raise InputError(path, rule, "List it with its address in large_files.yml")


def check_configurations(of: CheckedBundle) -> None:
    """Refuse a configuration that cannot be parsed, or refers to what is not in the bundle.

    Raises:
        InputError: there is one.
    """
    for name in of.bundle.configs:
        with of.resolved(name):
            pass


def check_inference(of: CheckedBundle) -> None:
    """Refuse an inference without the properties that MONAI asks for.

    Raises:
        InputError: one is missing, or there is no ``configs/inference``.
    """
    _check_properties(of, "inference", "infer")


def check_training(of: CheckedBundle) -> None:
    """Refuse a training without the properties that MONAI asks for.

    Raises:
        NotApplicableError: there is no ``configs/train``, which the zoo does not ask for.
        InputError: one is missing.
    """
    if "train" not in of.bundle.configs:
        raise NotApplicableError("there is no configs/train, which the zoo does not ask for")
    _check_properties(of, "train", "train")


def _check_properties(of: CheckedBundle, name: str, workflow: Literal["train", "infer"]) -> None:
    from medsegdiff.bundle.described_workflow import missing_properties

    config = of.bundle.config(name)
    try:
        with of.resolved(name) as copy:
            missing = missing_properties(copy, of.metadata_file, workflow)
    except ValueError as error:
        remedy = "Let transforms and metrics be keys of their own, and refer to them by @"
        raise InputError(config, f"its properties cannot be checked ({error})", remedy) from error
    if missing:
        rule = f"lacks, or names otherwise than MONAI, {', '.join(missing)}"
        raise InputError(config, rule, "Add these keys; monai.bundle.properties describes them")


CHECKS: Mapping[str, Callable[[CheckedBundle], None]] = {
    "files": check_files,
    "weight_file": check_weight_file,
    "sizes": check_sizes,
    "version": check_version,
    "metadata": check_keys_of_metadata,
    "channels": check_channels,
    "schema": check_schema,
    "configurations": check_configurations,
    "inference": check_inference,
    "training": check_training,
    "network": check_network,
    "weights": check_weights,
    "torchscript": check_torchscript,
}
"""Name -> check, in the order in which they are made."""

MAY_BE_EXEMPT = ("weight_file", "inference", "network", "weights", "torchscript")
"""Checks that the zoo itself leaves out for some bundles."""
