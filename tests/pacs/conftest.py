"""A real Orthanc server with its DICOMweb plugin, on loopback, for as long as the tests."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

INSTALL = "on Debian or Ubuntu: apt-get install orthanc orthanc-dicomweb"
PLUGIN_FOLDERS = ("/usr/share/orthanc/plugins", "/usr/lib/orthanc", "/usr/local/share/orthanc")
STARTS_WITHIN = 60.0  # seconds
USERS = {"writer": "w0rd", "rater": "r3ad"}
MAY_NOT_STORE = """
function IncomingHttpRequestFilter(method, uri, ip, username, headers)
  return method == 'GET' or username ~= 'rater'
end
"""


@dataclass(frozen=True)
class Orthanc:
    """The running server.

    Attributes:
        url: its DICOMweb root.
        users: names and passwords; ``rater`` may not store.
    """

    url: str
    users: dict[str, str]


def find_program() -> str | None:
    return shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")


def find_plugin() -> Path | None:
    found = (p for f in PLUGIN_FOLDERS for p in sorted(Path(f).rglob("libOrthancDicomWeb.so*")))
    return next(found, None)


@pytest.fixture(scope="session")
def orthanc(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Orthanc]:
    """Started on a free port with an empty storage; stopped and removed whatever happens."""
    program, plugin = find_program(), find_plugin()
    if program is None or plugin is None:
        missing = "Orthanc" if program is None else "Orthanc's DICOMweb plugin"
        told = f"{missing} is not installed ({INSTALL})"
        if request.config.getoption("--need-orthanc"):
            pytest.fail(told, pytrace=False)
        pytest.skip(told)
    folder = tmp_path_factory.mktemp("orthanc")
    port = free_port()
    (folder / "configuration.json").write_text(json.dumps(configuration(folder, port, plugin)))
    (folder / "rights.lua").write_text(MAY_NOT_STORE)
    with (folder / "log.txt").open("w") as log:
        command = [program, str(folder / "configuration.json")]
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(process, port, folder / "log.txt")
        yield Orthanc(f"http://127.0.0.1:{port}/dicom-web", USERS)
    finally:
        stop(process)
        shutil.rmtree(folder)


def configuration(folder: Path, port: int, plugin: Path) -> dict[str, object]:
    return {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(plugin)],
        "HttpPort": port,
        "HttpBindAddresses": ["127.0.0.1"],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": USERS,
        "LuaScripts": [str(folder / "rights.lua")],
        "DicomServerEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until the port answers.

    Raises:
        RuntimeError: it never does.
    """
    end = time.monotonic() + STARTS_WITHIN
    while process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"Orthanc does not start:\n{log.read_text()[-2000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
