"""An option that is a key of a bundle is written once, and is a key that the bundles have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from medsegdiff.bundle.bundle import check_keys, load_bundle
from medsegdiff.cli.counterfactual import counterfactual
from medsegdiff.cli.diffumask import diffumask
from medsegdiff.cli.ground import ground
from medsegdiff.cli.label_efficient import label_efficient
from medsegdiff.cli.main import app
from medsegdiff.cli.options import BundleKey, Formats, Members, Overwrite, Settings, given
from medsegdiff.cli.prompt import prompt
from medsegdiff.cli.segment import segment
from medsegdiff.cli.synthesize import synthesize
from medsegdiff.core.errors import UsageError
from medsegdiff.prompting.changes import changed
from medsegdiff.prompting.grounded import TeachingOptions
from medsegdiff.prompting.pairs import PairOptions
from medsegdiff.prompting.prompt_options import PromptOptions

RUNNER = CliRunner()


def command(
    members: Members = None,
    channels: Annotated[str | None, BundleKey("channel_series"), typer.Option()] = None,
    formats: Formats = None,
    overwrite: Overwrite = False,
    settings: Settings = None,
    other: str = "",
) -> None:
    """Stands for a command."""


def keys_of(command: Callable[..., None]) -> set[str]:
    """The keys that a command's options stand for."""
    hints = get_type_hints(command, include_extras=True).items()
    marks = ((n, m) for n, hint in hints for m in getattr(hint, "__metadata__", ()))
    return {mark.name or name for name, mark in marks if isinstance(mark, BundleKey)}


def test_only_what_was_given_is_handed_on() -> None:
    nothing = {"members": None, "overwrite": False, "settings": None, "other": "x"}
    assert given(command, nothing) == {}
    some = {"members": 4, "channels": "T1", "formats": "nrrd, nifti", "overwrite": True}
    assert given(command, some | {"settings": ["a#b=0.5"], "other": "x"}) == {
        "members": 4,
        "channel_series": "T1",
        "formats": ["nrrd", "nifti"],
        "overwrite": True,
        "a#b": 0.5,
    }


def test_zero_is_a_value() -> None:
    assert given(counterfactual, {"seed": 0, "guidance": 0.0}) == {"seed": 0, "guidance": 0.0}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"members": 4, "settings": ["members=5"]}, "--set members"),
        ({"formats": "nifty"}, "nifti"),
        ({"settings": ["members"]}, "key=value"),
    ],
)
def test_what_cannot_be_read_is_wrong_usage(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        given(command, arguments)


@pytest.mark.parametrize(
    ("command", "bundle", "config"),
    [
        (segment, "hippocampus_mr", "inference"),
        (segment, "lung_nodule_ct", "inference"),
        (label_efficient, "hippocampus_label_efficient", "label_efficient"),
        (synthesize, "hippocampus_synthesis", "synthesize"),
        (counterfactual, "phantom_counterfactual", "counterfactual"),
    ],
)
def test_options_are_keys_of_the_bundles(
    command: Callable[..., None], bundle: str, config: str
) -> None:
    found = load_bundle(bundle)
    check_keys(found.parser(config), dict.fromkeys(keys_of(command)), found.config(config))
    assert keys_of(command)


@pytest.mark.parametrize(
    ("command", "options", "own"),
    [
        (prompt, PromptOptions(), {"formats", "save_members", "overwrite"}),
        (ground, TeachingOptions(), set()),
        (diffumask, PairOptions(), set()),
    ],
)
def test_options_are_fields_of_how_words_are_looked_for(
    command: Callable[..., None], options: Any, own: set[str]
) -> None:
    for key in keys_of(command) - own:
        value: Any = options
        for name in key.split("#"):
            value = getattr(value, name)
        assert changed(options, {key: value}) == options


def test_an_unknown_setting_names_the_closest_key(tmp_path: Path) -> None:
    (tmp_path / "a.nii").touch()
    line = f"segment {tmp_path}/a.nii --bundle hippocampus_mr --output {tmp_path} --set membrs=4"
    result = RUNNER.invoke(app, line.split())
    assert result.exit_code == 2 and "Did you mean members?" in result.stderr
