"""Bundles from MLflow's registry, of a database and of a server."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
from mlflow import MlflowClient

from medsegdiff.bundle import trusted_bundles
from medsegdiff.bundle.bundle import Bundle, load_bundle
from medsegdiff.bundle.model_registry import from_registry
from medsegdiff.bundle.trusted_bundles import check_trust
from medsegdiff.core.errors import InputError


def register(address: str, bundle: Path, name: str) -> MlflowClient:
    """Register a bundle as a study does."""
    client = MlflowClient(tracking_uri=address)
    run = client.create_run(client.create_experiment(f"of {name}")).info
    client.log_artifacts(run.run_id, str(bundle), "bundle")
    client.create_registered_model(name)
    client.create_model_version(name, f"{run.artifact_uri}/bundle", run.run_id)
    return client


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(trusted_bundles, "_known", set())  # as in another process
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def test_a_registered_bundle_is_fetched_once(untrained: Bundle, place: Path) -> None:
    client = register(f"sqlite:///{place}/mlruns.db", untrained.root, "hearts")
    found = load_bundle("models:/hearts/1")
    assert (found.name, found.labels) == ("hearts", untrained.labels)
    with pytest.raises(InputError, match="--trust"):
        check_trust(found.root, ())
    shutil.rmtree(place / "mlruns", ignore_errors=True)
    assert load_bundle("models:/hearts/1").root == found.root
    client.set_registered_model_alias("hearts", "champion", "1")
    assert load_bundle("models:/hearts@champion").root == found.root
    for address, match in {
        "models:/hearts/2": "cannot be fetched",
        "models:/livers/1": "cannot be fetched",
        "models:/hearts": "which version",
    }.items():
        with pytest.raises(InputError, match=match):
            load_bundle(address)


def test_what_is_no_registry_or_no_bundle(place: Path) -> None:
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI"):
        from_registry("models:/hearts/1")
    (place / "other").mkdir()
    (place / "other" / "MLmodel").write_text("x")
    register(f"sqlite:///{place}/mlruns.db", place / "other", "other")
    with pytest.raises(InputError, match="no bundle"):
        from_registry("models:/other/1")


@pytest.mark.long
def test_a_server_keeps_bundles_too(
    untrained: Bundle, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = ["--backend-store-uri", f"sqlite:///{place}/server.db"]
    stores += ["--artifacts-destination", str(place / "kept")]
    command = [sys.executable, "-m", "mlflow", *words, *stores]
    server = subprocess.Popen(command, cwd=place, start_new_session=True)
    try:
        _wait_for(f"{address}/health")
        register(address, untrained.root, "hearts")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert load_bundle("models:/hearts/1").labels == untrained.labels
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # with its workers
        server.wait()


def test_a_dead_server_is_told_in_seconds(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(InputError, match="cannot be fetched"):
        from_registry("models:/hearts/1")
    assert time.monotonic() - started < 30.0  # not the minutes of MLflow's own retries


def _wait_for(address: str) -> None:
    for _ in range(240):
        try:
            urlopen(address, timeout=1).close()
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"no server at {address}")
