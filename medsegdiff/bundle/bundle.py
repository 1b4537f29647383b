"""MONAI bundles as this package uses them: find, describe, and parse with checks.

MONAI and torch take seconds to import, so that they are imported where they are first needed.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsegdiff.bundle.model_registry import from_registry, is_registered
from medsegdiff.bundle.trusted_bundles import check_trust, is_leftover
from medsegdiff.core.atomic_files import digest
from medsegdiff.core.errors import InputError, UsageError, in_words, surfacing_input_errors

if TYPE_CHECKING:
    import torch
    from monai.bundle import ConfigParser

WEIGHTS = "models/model.pt"
LOCATOR_FILE = "locator.pt"
"""Name of the weights of a locator, in ``models`` and in the folder of a run."""
CALIBRATION = "models/calibration.json"
STUDY = "study.json"
"""Name of the file that makes a folder a study, as ``medsegdiff fit`` writes it."""
RESULT = "bundle"
"""Name of the folder in a study that holds its bundle."""
ENGINES = "\n# === for MONAI's engines"
"""Beginning of the part of a configuration, its last, that decides no mask."""
_PACKAGE = Path(__file__).resolve().parents[1]
_SHIPPED = (_PACKAGE / "bundles", _PACKAGE.parent / "bundles")  # installed; checkout


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk.

    Attributes:
        root: Path of the bundle's folder.
    """

    root: Path

    @property
    def name(self) -> str:
        """The folder's name; of a study's result, the study's."""
        of_study = self.root.name == RESULT and (self.root.parent / STUDY).is_file()
        return self.root.parent.name if of_study else self.root.name

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """Content of ``configs/metadata.json``.

        Raises:
            InputError: the file is not readable JSON, or does not describe the network's output.
        """
        path = self.root / "configs" / "metadata.json"
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            _channel_def(content)
        except (OSError, ValueError) as error:
            raise InputError(path, f"cannot be read ({error})", "Restore the bundle") from error
        except (KeyError, TypeError, AttributeError) as error:
            rule = (
                "lacks network_data_format.outputs.pred.channel_def, numbers and names of classes"
            )
            raise InputError(path, rule, "Write it as in the bundles that ship") from error
        return content

    @property
    def labels(self) -> dict[int, str]:
        """Class number -> name, background (0) included."""
        return _channel_def(self.metadata)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the image's channels, in their order; empty where the metadata have none."""
        try:
            named = _channel_def(self.metadata, "inputs", "image")
        except (KeyError, TypeError, ValueError, AttributeError):
            return ()
        return tuple(named[number] for number in sorted(named))

    @property
    def codes(self) -> dict[int, dict[str, list[str]]]:
        """Class number -> its DICOM codes, from the metadata's ``segment_codes``; may be empty."""
        return {int(v): c for v, c in self.metadata.get("segment_codes", {}).items()}

    @property
    def configs(self) -> list[str]:
        """Names of the bundle's configurations, which show the tasks that it is made for."""
        files = (self.root / "configs").glob("*.*")
        found = {path.stem for path in files if path.suffix in (".yaml", ".yml", ".json")}
        return sorted(found - {"metadata"})

    def config(self, name: str) -> Path:
        """The configuration ``configs/<name>`` as YAML or JSON.

        Raises:
            InputError: the bundle has no configuration of that name.
        """
        for ending in (".yaml", ".yml", ".json"):
            path = self.root / "configs" / f"{name}{ending}"
            if path.is_file():
                return path
        there = ", ".join(self.configs) or "none"
        rule = f"has no configs/{name}.yaml or .json, so it is not made for that (it has: {there})"
        raise InputError(self.root, rule, "Choose a bundle that has; medsegdiff bundles lists them")

    def weights(self) -> Path:
        """The trained weights.

        Raises:
            InputError: there are none.
        """
        path = self.root / WEIGHTS
        if not path.is_file():
            raise InputError(
                path,
                "the bundle has no weights",
                "Train it, then copy the run's final.pt there, or use a bundle that ships some",
            )
        return path

    @property
    def pipeline(self) -> Path | None:
        """Folder of the bundle's model in the ``diffusers`` format; None for any other model."""
        folder = self.root / "models"
        return folder if (folder / "model_index.json").is_file() else None

    @property
    def locator(self) -> Path:
        """Path of the weights of the network that finds places in a scan; most bundles lack it."""
        return self.root / "models" / LOCATOR_FILE

    def weight_files(self) -> list[Path]:
        """Files of the trained weights; of a pipeline, those of all its networks.

        Raises:
            InputError: there are none.
        """
        if self.pipeline is None:
            return [self.weights()]
        return sorted(self.pipeline.glob("*/*.safetensors"))

    def weights_hash(self) -> str:
        """SHA-256 over the weights, those of a locator included."""
        return digest(self._of_masks())

    def fingerprint(self, calibrated: bool = False, config: str = "inference") -> str:
        """SHA-256 over the files that determine the masks: configuration, weights, calibration.

        Of the configuration, what it has for MONAI's engines (``ENGINES``) does not count.

        Args:
            calibrated: Whether the calibration is applied, and therefore part of the hash.
            config: Name of the configuration.
        """
        further = [self.root / CALIBRATION] if calibrated else []
        deciding, *_ = self.config(config).read_bytes().partition(ENGINES.encode())
        return digest([*self._of_masks(), *further], deciding)

    def _of_masks(self) -> list[Path]:
        """The weights that the masks depend on."""
        return [self.weights(), *([self.locator] if self.locator.is_file() else [])]

    def parser(
        self, name: str, overrides: Mapping[str, Any] | None = None, *, running: bool = False
    ) -> ConfigParser:
        """The configuration, ready to be resolved, with some values replaced.

        References to another file of the bundle (``%configs/inference.yaml#network_def``) are
        replaced by that file's content. ``overrides`` may therefore name keys within it, and the
        working folder does not matter.

        Args:
            name: Name of the configuration: ``train``, ``inference``, ``evaluate`` or
                ``calibrate``.
            overrides: MONAI ids (``train#trainer#max_epochs``) -> values.
            running: Whether a configuration of this bundle calls, by MONAI's own command as well,
                so that it is too late to ask whether it may run.

        Raises:
            InputError: the bundle has no such configuration, or it cannot be parsed, or is not
                trusted to run (:mod:`medsegdiff.bundle.trusted_bundles`).
            UsageError: the configuration has no such key.
        """
        path, metadata = self.config(name), self.metadata
        if not running:
            check_trust(self.root, (one.root for one in list_bundles()))
        from monai.bundle import ConfigParser

        parser = ConfigParser()
        try:
            parser.read_config(with_shared(ConfigParser.load_config_file(path), self.root))
        except InputError:
            raise
        except Exception as error:
            raise InputError(path, f"cannot be parsed ({error})", "Check its syntax") from error
        parser.read_meta(metadata)
        changes = {"bundle_root": str(self.root), **(overrides or {})}
        check_keys(parser, changes, path)
        parser.update(changes)
        return parser


@contextmanager
def making_objects(path: Path) -> Iterator[None]:
    """A context in which a configuration's objects are made, by its own code and values.

    Args:
        path: Path of the configuration.

    Raises:
        InputError: one was raised within, wrapped or not; or an object cannot be made.
    """
    try:
        with surfacing_input_errors():
            yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
            raise
        rule = f"its objects cannot be made ({in_words(error)})"
        raise InputError(path, rule, "Compare it with a bundle that ships") from error


def check_keys(parser: ConfigParser, overrides: Mapping[str, Any], path: Path) -> None:
    """Refuse keys that the configuration does not have; MONAI would accept them silently.

    Raises:
        UsageError: a key is unknown; the message names the closest known one.
    """
    known = list(_ids(parser.config))
    for key in overrides:
        if key.replace("::", "#") not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            remedy = f"Did you mean {near[0]}?" if near else "See the file for its keys"
            raise UsageError(key, f"is not a key of {path}", remedy)


def device_change(device: str) -> dict[str, str]:
    """Override of a bundle's configuration that selects ``device``; empty for ``auto``.

    Raises:
        UsageError: torch has no such device here.
    """
    if device == "auto":
        return {}
    checked_device(device)
    return {"device": f"$torch.device({device!r})"}


def checked_device(device: str) -> torch.device:
    """The torch device of a name; ``auto`` chooses a GPU if there is one.

    Raises:
        UsageError: torch has no such device here.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        remedy = "Use --device cpu, or auto"
        raise UsageError(f"--device {device}", f"cannot be used ({reason})", remedy) from error
    return torch.device(device)


def load_bundle(bundle: str | Path | Bundle) -> Bundle:
    """Find a bundle by its folder or its study's, a shipped one by its name, or one at MLflow.

    A ``Bundle`` is returned as is; ``models:/name/version`` is fetched from MLflow's registry.

    Raises:
        InputError: the folder is not a bundle, or a study that is not finished; or the registered
            model cannot be fetched.
        UsageError: the name is unknown, or is also that of a bundle in the working folder.
    """
    if isinstance(bundle, Bundle):
        return bundle
    name, folder = str(bundle), Path(bundle)
    if is_registered(name):
        return Bundle(from_registry(name))
    shipped = {one.name: one for one in list_bundles()}
    places = [folder, folder / RESULT] if (folder / STUDY).is_file() else [folder]
    if name in shipped:
        return _unambiguous(shipped[name], places)
    for place in places:
        if (place / "configs" / "metadata.json").is_file():
            return Bundle(place.resolve())
    if len(places) > 1:
        raise InputError(folder, "is a study without its bundle", "Let medsegdiff fit finish it")
    if folder.is_dir():
        raise InputError(folder, "has no configs/metadata.json", "Give the folder of a bundle")
    near = difflib.get_close_matches(name, shipped, n=1)
    remedy = f"Did you mean {near[0]}?" if near else f"Bundles at hand: {', '.join(shipped)}"
    raise UsageError(name, "is neither a folder nor a bundle that ships", remedy)


def _unambiguous(shipped: Bundle, places: Sequence[Path]) -> Bundle:
    """The shipped bundle, unless a folder of its name could be meant.

    Raises:
        UsageError: there is such a folder, which is a bundle or a study.
    """
    local = places[0]
    there = len(places) > 1 or (local / "configs" / "metadata.json").is_file()
    if there and local.resolve() != shipped.root.resolve():
        rule = "is both a bundle that ships and one in the working folder"
        remedy = f"Write ./{local} for your own, or {shipped.root} for the one that ships"
        raise UsageError(shipped.name, rule, remedy)
    return shipped


def list_bundles() -> list[Bundle]:
    """All bundles that ship with the package, sorted by name."""
    found = {
        path.parent.parent.name: Bundle(path.parent.parent)
        for folder in reversed(_SHIPPED)
        for path in folder.glob("*/configs/metadata.json")
    }
    return [found[name] for name in sorted(found)]


def _channel_def(
    metadata: dict[str, Any], way: str = "outputs", name: str = "pred"
) -> dict[int, str]:
    channels = metadata["network_data_format"][way][name]["channel_def"]
    return {int(value): str(name) for value, name in channels.items()}


def with_shared(config: Any, root: Path) -> Any:
    """The configuration, with references to other files of the bundle in ``root`` replaced.

    MONAI resolves such references from the working folder, which its own command expects to be
    ``root``. Only files in its ``configs`` can be referred to, since only these are trusted.

    Raises:
        InputError: a reference is to another file.
    """
    if isinstance(config, dict):
        return {key: with_shared(value, root) for key, value in config.items()}
    if isinstance(config, list):
        return [with_shared(value, root) for value in config]
    from monai.bundle import ConfigParser

    file, key = ConfigParser.split_path_id(config[1:]) if _is_macro(config) else ("", "")
    if not file:
        return config
    path = (root / file).resolve()
    configs = (root / "configs").resolve()
    if not path.is_relative_to(configs) or is_leftover(path.relative_to(configs)):
        rule = f"refers to {file}, which is not in its configs, or hidden there"
        raise InputError(root, rule, "Put the file there")
    return with_shared(ConfigParser(ConfigParser.load_config_file(path))[key], root)


def _is_macro(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("%")


def _ids(config: Any, prefix: str = "") -> Any:
    """Every id of a configuration, nested keys joined by ``#``."""
    items = (
        config.items()
        if isinstance(config, dict)
        else enumerate(config)
        if isinstance(config, list)
        else ()
    )
    for key, value in items:
        name = f"{prefix}#{key}" if prefix else str(key)
        yield name
        yield from _ids(value, name)
