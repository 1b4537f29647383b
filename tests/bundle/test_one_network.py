"""Of a bundle's network and preprocessing there is one description, which all its files use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.transforms import Compose

from medsegdiff.bundle.bundle import Bundle, list_bundles, load_bundle
from medsegdiff.bundle.network import read_weights
from medsegdiff.bundle.trusted_bundles import trust
from medsegdiff.core.errors import InputError
from medsegdiff.phantoms.cohort import write_cohort

USES = ("inference", "label_efficient", "synthesize", "counterfactual")
TRAINED = {b.name: use for b in list_bundles() for use in USES if {"train", use} <= {*b.configs}}
both = pytest.mark.parametrize("name", TRAINED)
PARTS = ("networks", "models.DiffusionSegmenter", "models.ImageDiffusion", "diffusion.Gaussian")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("data"), cases=5, size=16)


def parsers(name: str, data: Path, **changes: Any) -> tuple[ConfigParser, ConfigParser]:
    bundle = load_bundle(name)
    train = bundle.parser("train", {"dataset_dir": str(data), **changes})
    return train, bundle.parser(TRAINED[name], changes)


def described(thing: Any) -> Any:
    """An object by its type and all its plain values, those of its parts included."""
    if isinstance(thing, list | tuple):
        return [described(part) for part in thing]
    if isinstance(thing, dict):
        return {key: described(value) for key, value in thing.items()}
    if isinstance(thing, torch.Tensor):
        return thing.tolist()
    if isinstance(thing, Enum):
        return thing.name
    if type(thing).__module__.startswith(("monai", "medsegdiff")):
        return type(thing).__name__, {k: described(v) for k, v in vars(thing).items()}
    return thing if isinstance(thing, str | int | float | None) else repr(type(thing))


def test_all_bundles_with_a_network_of_ours_are_tested() -> None:
    assert len(TRAINED) == len([b for b in list_bundles() if b.pipeline is None]) >= 5


@both
def test_training_and_use_build_the_same_network(name: str, data: Path) -> None:
    networks = [p.get_parsed_content("network_def") for p in parsers(name, data)]
    shapes = [{k: v.shape for k, v in n.state_dict().items()} for n in networks]
    assert shapes[0] == shapes[1]
    for part in ("process", "target", "samples_per_target", "precision"):
        assert described(getattr(networks[0], part, 0)) == described(getattr(networks[1], part, 0))


def chain(transforms: Any) -> list[Any]:
    """Type and values of transforms, without what the data set says of its labels."""
    found = []
    for transform in transforms:
        kind, values = described(transform)
        label = ("labels", "references", "raters") if kind == "LoadCased" else ("R",)
        found.append((kind, {k: v for k, v in values.items() if k not in label}))
    return found


@both
def test_training_and_use_prepare_an_image_alike(name: str, data: Path) -> None:
    train, use = parsers(name, data)
    used = chain(use.get_parsed_content("preprocessing").transforms)
    learned = train.get_parsed_content("deterministic_transforms")
    assert all(not isinstance(step, Compose) for step in learned)  # it draws seeds of its own
    if "fit_transforms" in use:
        learned = learned + train.get_parsed_content("fit_transforms")
        assert chain(learned) == used
    else:
        whole = [s for s in chain(learned)[:-1] if s[0] != "CropAroundStructuresd"]  # as a locator
        assert whole == used and type(learned[-1]).__name__ == "SelectItemsd"


def spelled(config: Any) -> Iterator[str]:
    """The targets that a configuration spells itself."""
    if isinstance(config, dict):
        yield from ([config["_target_"]] if "_target_" in config else [])
        config = list(config.values())
    for value in config if isinstance(config, list) else ():
        yield from spelled(value)


@both
def test_nothing_of_a_network_is_spelled_twice(name: str) -> None:
    bundle = load_bundle(name)
    files = {c: ConfigParser.load_config_file(str(bundle.config(c))) for c in bundle.configs}
    for config, content in files.items():
        targets = [t.removeprefix("medsegdiff.") for t in spelled(content)]
        network = [t for t in targets if t.startswith(PARTS)]
        loaders = targets.count("data.LoadCased")
        assert (bool(network), loaders) == ((True, 1) if config == TRAINED[name] else (False, 0))
    shared = f"%configs/{TRAINED[name]}.yaml#"
    train, use = files["train"], files[TRAINED[name]]
    own = {key for key, value in train.items() if not str(value).startswith(shared)}
    inputs = {"bundle_root", "dataset_dir", "output_dir", "fold", "seed", "device", "manifest"}
    assert own & {*use} <= inputs | {"imports", "run", "network"}


@both
def test_a_change_of_the_one_description_changes_training(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "copy # with a sign that separates keys"
    shutil.copytree(load_bundle(name).root / "configs", root / "configs")
    path = Bundle(root).config(TRAINED[name])
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("n_timesteps: 1000", "n_timesteps: 77"), encoding="utf-8")
    train = Bundle(root).parser("train")
    assert train.get_parsed_content("network_def").process.n_timesteps == 77
    monkeypatch.chdir(root)
    workflow = ConfigWorkflow("configs/train.yaml", logging_file=False, dataset_dir=str(data))
    assert workflow.parser.get_parsed_content("network_def").process.n_timesteps == 77


@both
def test_a_key_within_can_be_changed_for_one_training(name: str, data: Path) -> None:
    changed, _ = parsers(name, data, **{"network_def#denoiser#channels": [16, 32, 64]})
    assert changed["network_def#denoiser#channels"] == [16, 32, 64]
    assert load_bundle(name).parser("train")["network_def#denoiser#channels"] != [16, 32]


@both
def test_the_zoos_keys_of_a_training_are_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(load_bundle(name).root)
    workflow = ConfigWorkflow("configs/train.yaml", logging_file=False, workflow_type="train")
    properties = workflow.properties or {}
    needed = [p["id"] for p in properties.values() if p["required"]]
    assert "train::trainer::max_epochs" in needed
    assert [key for key in [*needed, "network_def"] if key not in workflow.parser] == []


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    shutil.copytree(load_bundle("hippocampus_mr").root / "configs", tmp_path / "configs")
    (tmp_path / "configs" / "inference.yaml").unlink()
    trust(tmp_path)
    with pytest.raises(InputError, match=r"train\.yaml: cannot be parsed.*inference\.yaml"):
        Bundle(tmp_path).parser("train")


def test_all_bundles_log_alike() -> None:
    files = [bundle.root / "configs" / "logging.conf" for bundle in list_bundles()]
    assert len({path.read_text(encoding="utf-8") for path in files}) == 1


class _Program:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("kind", ["a program", "no weights"])
def test_weights_that_are_a_program_are_not_loaded(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "model.pt"
    if kind == "a program":
        torch.save({"weight": _Program()}, path)
    else:
        path.write_bytes(b"no weights at all")
    with pytest.raises(InputError, match="it is not loaded") as caught:
        read_weights(Bundle(tmp_path))
    assert not (tmp_path / "ran").exists()
    assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)
