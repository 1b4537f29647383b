"""Which bundles may run: those of this package, those made on this machine, those a user trusts.

The configurations of a bundle are programs: what follows a ``$`` is Python, and ``_target_`` calls
any function. A bundle from elsewhere runs only once its user has said that it may, which is kept by
a hash of its files; so one that was changed asks again, and one that was moved does not. Where the
code is this package's own, as in a copy of a shipped bundle or in a planned one, other numbers and
texts may stand between it: no shipped code runs a text.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

from medsegdiff.core.atomic_files import write_text
from medsegdiff.core.errors import InputError

_known: set[str] = set()  # of this process, where nothing can be written
_trusting: ContextVar[bool] = ContextVar("trusting", default=False)
_PARSED = (".yaml", ".yml", ".json")
_SIGNS = ("$", "@", "%")  # of expressions, references and macros


def trust(bundle: str | Path) -> None:
    """Let a bundle run from now on, as it is, also by other commands of this user.

    Args:
        bundle: Folder of the bundle.

    Raises:
        InputError: a configuration of it cannot be read.
    """
    _remember(code_digest(Path(bundle), exact=True), Path(bundle))


def trust_own(bundle: Path) -> None:
    """Let a bundle run whose code this package wrote, also with other values.

    Args:
        bundle: Folder of the bundle.
    """
    _remember(code_digest(bundle, exact=False), bundle)


def _remember(key: str, bundle: Path) -> None:
    _known.add(key)
    folder = _folder()
    if folder is not None:
        with suppress(OSError):  # where nothing can be written, it is known to this process alone
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_text(folder / key, f"{bundle.resolve()}\n")


@contextmanager
def trusting(wanted: bool = True) -> Iterator[None]:
    """A context in which each bundle that is used is trusted, as by ``trust``.

    Args:
        wanted: Whether it is so.
    """
    before = _trusting.set(wanted)
    try:
        yield
    finally:
        _trusting.reset(before)


def check_trust(bundle: Path, shipped: Iterable[Path]) -> None:
    """Refuse a bundle that is neither shipped nor made here nor trusted.

    Args:
        bundle: Folder of the bundle.
        shipped: Folders of the bundles that ship with the package; copies of them, with other
            numbers, are trusted as well.

    Raises:
        InputError: the bundle may not run yet, or a configuration of it cannot be read.
    """
    known = tuple(path.resolve() for path in shipped)
    if bundle.resolve() in known:
        return
    if _trusting.get():
        return trust(bundle)
    exact, code = (code_digest(bundle, exact=exact) for exact in (True, False))
    folder = _folder()
    kept = folder is not None and any((folder / key).is_file() for key in (exact, code))
    if kept or _known & {exact, code}:
        return
    if code in _digests(known):
        return _remember(code, bundle)
    rule = "is a bundle from elsewhere, or was changed, and its configurations are programs"
    remedy = (
        "Read what is in its configs and *.py; if you trust that, add --trust, once "
        "(in Python: medsegdiff.bundle.trust(folder))"
    )
    raise InputError(bundle, rule, remedy)


def code_digest(bundle: Path, *, exact: bool) -> str:
    """SHA-256, in hexadecimal, of what a bundle can do.

    Further files in ``configs``, and Python files, count as they are. Of the metadata, which
    describe, only what MONAI would evaluate counts, and addresses.

    Args:
        bundle: Folder of the bundle.
        exact: Whether all of a configuration counts but its numbers; otherwise its structure, what
            MONAI would evaluate, and addresses.

    Raises:
        InputError: a configuration cannot be read.
    """
    checksum = hashlib.sha256(b"exact" if exact else b"code")
    configs = bundle / "configs"
    files = {*configs.rglob("*"), *bundle.rglob("*.py")}
    for path in sorted(file for file in files if file.is_file()):
        if path.suffix != ".py" and is_leftover(path.relative_to(bundle)):
            continue
        name = path.relative_to(bundle).as_posix()
        try:
            describes = name == "configs/metadata.json"
            content = _content(path, exact and not describes, describes)
        except Exception as error:  # whatever a parser raises on what it was not made for
            rule = f"cannot be read ({type(error).__name__})"
            raise InputError(path, rule, "Restore the bundle") from error
        checksum.update(f"{name}\n{len(content)}\n".encode() + content)
    return checksum.hexdigest()


@cache
def _digests(shipped: tuple[Path, ...]) -> frozenset[str]:
    return frozenset(code_digest(path, exact=False) for path in shipped)


def is_leftover(path: Path) -> bool:
    """Whether a file within a bundle is one that a system or an editor leaves; it is never read.

    Args:
        path: Path within the bundle.
    """
    return path.name.endswith("~") or any(part.startswith(".") for part in path.parts)


def _content(path: Path, exact: bool, describes: bool) -> bytes:
    """What counts of a file; of one that describes, only what could be run."""
    if path.suffix not in _PARSED:
        return path.read_bytes()
    import yaml

    with path.open("rb") as stream:  # as MONAI parses it: of equal keys the last counts
        parsed = json.load(stream) if path.suffix == ".json" else yaml.safe_load(stream)
    code = _code(parsed, exact)
    return json.dumps(_without_values(code) if describes else code, sort_keys=True).encode()


def _without_values(code: Any) -> Any:
    """Code without the keys and entries that hold values alone."""
    if isinstance(code, dict) and code != _VALUE:
        kept = {k: v for k, item in code.items() if (v := _without_values(item)) != _VALUE}
        return kept or _VALUE
    if isinstance(code, list):
        return [v for item in code if (v := _without_values(item)) != _VALUE] or _VALUE
    return code


def _code(value: Any, exact: bool) -> Any:
    """A configuration without what cannot be code."""
    if isinstance(value, dict):
        return {
            str(key): _code(item, exact or str(key).startswith("_")) for key, item in value.items()
        }
    if isinstance(value, list):
        items = [_code(item, exact) for item in value]
        return items if any(item != _VALUE for item in items) else _VALUE
    if isinstance(value, str):
        counts = value.lstrip().startswith(_SIGNS) or "://" in value
        return value if counts or (exact and not _is_number(value)) else _VALUE
    return value if exact and (value is None or isinstance(value, bool)) else _VALUE


_VALUE = {"": 0}  # stands for any value; no configuration holds it


def _is_number(text: str) -> bool:
    """Whether a text is a number, such as 1e-4, which is a text to YAML."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _folder() -> Path | None:
    """Where a user's decisions are kept (XDG); None on a system without a home."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    try:
        base = Path(given) if os.path.isabs(given) else Path.home() / ".config"
    except RuntimeError:
        return None
    return base / "medsegdiff" / "trusted_bundles"
