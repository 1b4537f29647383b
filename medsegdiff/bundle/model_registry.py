"""Bundles from MLflow's model registry: ``models:/name/version``."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from medsegdiff.core.atomic_files import written_aside
from medsegdiff.core.errors import InputError, needs_extra, reason_of
from medsegdiff.core.impatience import briefly

SCHEME = "models:/"
DATABASE = "mlruns.db"
"""Database of the working folder, where trainings record unless told otherwise."""


def is_registered(bundle: str) -> bool:
    """Whether a text is the address of a registered model."""
    return bundle.startswith(SCHEME)


def from_registry(address: str) -> Path:
    """Fetch a registered bundle, once, into the user's cache.

    The registry is that of ``MLFLOW_TRACKING_URI``, or of ``mlruns.db`` in the working folder. A
    version never changes; an alias (``models:/name@alias``) is looked up each time.

    Args:
        address: Address of the model, ``models:/name/version`` or ``models:/name@alias``.

    Returns:
        Folder of the bundle.

    Raises:
        InputError: MLflow is not installed, there is no registry, no such model, or it is no
            bundle.
    """
    with needs_extra(address, "mlflow", "train"):
        import mlflow
    registry = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / DATABASE}"
    if registry.startswith("sqlite:///") and not Path(registry[len("sqlite:///") :]).is_file():
        rule = f"has no registry to be looked up in: there is no {registry}"
        raise InputError(address, rule, "Set MLFLOW_TRACKING_URI to your MLflow server or database")
    client = mlflow.MlflowClient(tracking_uri=registry, registry_uri=registry)
    try:
        with briefly():
            name, version = _version(client, address)
            source = client.get_model_version_download_uri(name, version)
        key = hashlib.sha256(f"{registry} {source}".encode()).hexdigest()[:16]
        folder = _cache() / "registry" / key / name
        if not folder.exists():
            with written_aside(folder) as aside:
                found = mlflow.artifacts.download_artifacts(
                    artifact_uri=source, dst_path=str(aside.parent), tracking_uri=registry
                )
                shutil.move(found, aside)
    except mlflow.exceptions.MlflowException as error:
        remedy = f"Look at the models of {registry}: mlflow ui --backend-store-uri {registry}"
        raise InputError(address, f"cannot be fetched ({reason_of(error)})", remedy) from None
    if not (folder / "configs" / "metadata.json").is_file():
        rule = "is a model, but no bundle: it has no configs/metadata.json"
        raise InputError(address, rule, "Name one that medsegdiff fit has registered")
    return folder


def _version(client: object, address: str) -> tuple[str, str]:
    """Name and version of a model's address.

    Raises:
        InputError: the address is incomplete.
    """
    words = address.removeprefix(SCHEME)
    name, at, alias = words.partition("@")
    if at and name and alias:
        return name, str(client.get_model_version_by_alias(name, alias).version)  # type: ignore[attr-defined]
    name, slash, version = words.rpartition("/")
    if not (slash and name and version):
        remedy = "Give a version, models:/name/1, or an alias, models:/name@champion"
        raise InputError(address, "does not say which version", remedy)
    return name, version


def _cache() -> Path:
    """The user's cache (XDG)."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    return base / "medsegdiff"
