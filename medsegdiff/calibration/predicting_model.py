"""What made the predictions of a calibration's fit: a bundle, or another program's model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.bundle.network import is_made_of
from medsegdiff.core.atomic_files import read_json
from medsegdiff.core.errors import InputError
from medsegdiff.data.manifest import Case, class_slug

ADOPT = "Give the bundle that made them, or bring them here by medsegdiff adopt"


@dataclass(frozen=True)
class PredictingModel:
    """The maker of predictions, to which their calibration is bound.

    Attributes:
        name: Name of the model.
        version: Version of it; empty where nobody gave one.
        classes: Names of the foreground classes in file names, in the order of their numbers.
        weights_hash: Hash that the calibration is bound to: of a bundle's weights, or of what tells
            another program's model from others.
        run_hashes: Hashes that the records of its cases may have.
        singles: Hashes or names of the single networks that made a part of the cases each; empty
            where one model made all.
        identity: Entries that tell another program's model from others; None of a bundle.
    """

    name: str
    version: str
    classes: tuple[str, ...]
    weights_hash: str
    run_hashes: frozenset[str]
    singles: tuple[str, ...] = ()
    identity: dict[str, Any] | None = None

    def described(self) -> dict[str, Any]:
        """The entries of a calibration's record about it."""
        single = {"single_networks": list(self.singles)} if self.singles else {}
        other = {"model": self.identity} if self.identity is not None else {}
        return single | other | {"bundle": self.name, "bundle_version": self.version}


def model_of_bundle(bundle: Bundle, singles: Sequence[Bundle] = ()) -> PredictingModel:
    """A bundle as the maker of predictions.

    Args:
        bundle: Bundle that the calibration is for.
        singles: Bundles of the single networks that made the predictions, each those of the cases
            that it had not seen. The bundle is their ensemble, or has their configuration and was
            trained like them, on all cases. None: it made all predictions itself.

    Raises:
        InputError: it is neither the ensemble of ``singles``, nor configured as they are.
    """
    if singles and not (_configured_alike(bundle, singles) or is_made_of(bundle, singles)):
        rule = "is not the ensemble of the networks that made the predictions, nor one like them"
        raise InputError(bundle.root, rule, "Put it together from them again")
    return PredictingModel(
        bundle.name,
        str(bundle.metadata.get("version", "")),
        tuple(class_slug(name) for value, name in bundle.labels.items() if value),
        bundle.weights_hash(),
        frozenset(one.fingerprint() for one in singles or [bundle]),
        tuple(one.weights_hash() for one in singles),
    )


def _configured_alike(bundle: Bundle, singles: Sequence[Bundle]) -> bool:
    """Whether the bundle samples a network of the same kind, in the same way, as each single."""
    own = bundle.config("inference").read_bytes()
    return all(one.config("inference").read_bytes() == own for one in singles)


def model_of_records(cases: Sequence[Case], predictions: Path) -> PredictingModel:
    """The other program's model that the records of adopted cases tell of.

    Args:
        cases: Cases that have a folder in ``predictions``, one at least.
        predictions: Folder that ``medsegdiff adopt`` wrote.

    Raises:
        InputError: a case was not adopted from another program.
    """
    records = {case.id: read_json(predictions / case.id / f"{case.id}_run.json") for case in cases}
    for name, record in records.items():
        if not isinstance(record, dict) or not isinstance(record.get("model"), dict):
            rule = "was not adopted from another program, and no bundle is given"
            raise InputError(predictions / name, rule, ADOPT)
    first = records[cases[0].id]
    networks = {record["model"]["network"] for record in records.values()} - {None}
    return PredictingModel(
        first["bundle"],
        first["bundle_version"],
        tuple(first["model"]["classes"]),
        first["bundle_hash"],
        frozenset([first["bundle_hash"]]),
        tuple(sorted(networks)) if len(networks) > 1 else (),
        first["model"]["identity"],
    )
