"""The module's logic in a scene that is not 3D Slicer's, with the real command."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from MedSegDiffLib.segment_command import SegmentOptions

from medsegdiff.bundle.bundle import Bundle
from tests.integrations.fake_slicer import DEFINED, Application, Markups, Table, Volume, scan

QUICK: dict[str, Any] = {"members": 2, "steps": 1, "device": "cpu"}


class Ends:
    """What the logic told of the command, and how it ended."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.told: list[tuple[Any, str]] = []

    def __call__(self, loaded: Any, reason: str) -> None:
        self.told.append((loaded, reason))


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Application:
    folder = tmp_path / "temporary"
    folder.mkdir()
    app = Application(folder)
    for name, module in app.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return app


@pytest.fixture
def logic(app: Application) -> Iterator[Any]:
    logic = importlib.import_module("MedSegDiff").MedSegDiffLogic()
    yield logic
    logic.close()
    for name in ("MedSegDiff", "MedSegDiffLib.scene_nodes"):  # they hold on to this scene
        del sys.modules[name]


@pytest.fixture
def ends() -> Ends:
    return Ends()


def started(logic: Any, ends: Ends, volume: Volume, options: SegmentOptions, **more: Any) -> None:
    logic.start(volume, options, on_line=ends.lines.append, on_end=ends, **more)


def script(tmp_path: Path, code: str) -> str:
    """Path of a program in place of the command; ``output`` is the folder for its results."""
    path = tmp_path / "program"
    head = "import json, pathlib, sys, time\noutput = sys.argv[sys.argv.index('--output') + 1]\n"
    path.write_text(f"#!{sys.executable}\n{head}{code}\n")
    path.chmod(0o755)
    return str(path)


def temporary(app: Application) -> list[Path]:
    return list(Path(app.slicer.app.temporaryPath).iterdir())


@pytest.mark.long
def test_a_volume_is_segmented_and_shown(
    app: Application, logic: Any, ends: Ends, bundle: Bundle, program: str
) -> None:
    volume = Volume("head", scan())
    started(logic, ends, volume, SegmentOptions(str(bundle.root), **QUICK), executable=program)
    assert logic.running and ends.told == []
    app.process_events(until=lambda: bool(ends.told))
    ((loaded, reason),) = ends.told
    assert (reason, logic.running, temporary(app)) == ("", False, [])
    assert any('"ok": true' in line for line in ends.lines)
    assert app.exported == {"properties": {"useCompression": 0}, "world": True}

    names = [node.name for node in loaded.maps]
    classes = [name.lower() for value, name in bundle.labels.items() if value]
    assert names == [f"head {kind} {name}" for kind in ("mean", "variance") for name in classes]
    for node in (loaded.segmentation, *loaded.maps):
        assert node.storage is None
        np.testing.assert_allclose(node.image.GetOrigin(), volume.image.GetOrigin(), atol=1e-4)
        np.testing.assert_allclose(
            node.image.GetDirection(), volume.image.GetDirection(), atol=1e-5
        )
        assert node.image.GetSize() == volume.image.GetSize()
    assert len(app.slicer.mrmlScene.removed) == 1 + len(loaded.maps)
    assert loaded.segmentation.reference is volume
    loaded.maps[-1].display.SetWindowLevelMinMax.assert_called_once_with(0.0, 0.25)
    loaded.maps[-1].display.SetThreshold.assert_called_once_with(0.005, 0.25)
    assert app.layers["background"] is volume
    assert app.layers["foreground"] is loaded.maps[len(classes)]
    assert app.slicer.mrmlScene.hierarchy.SetItemParent.call_count == 2 + len(loaded.maps)

    table: Table = loaded.table
    assert [column.name for column in table.columns] == ["What", "Class", "Value"]
    rows = list(zip(*table.columns, strict=True))
    assert rows[0][0] == "review score"
    assert {of for what, of, _ in rows if what == "volume"} == set(classes)


def test_results_of_a_moved_volume_refer_to_their_own_geometry(
    app: Application, logic: Any, bundle: Bundle, tmp_path: Path
) -> None:
    from medsegdiff.cases.job import segment

    image = tmp_path / "volume.nrrd"
    app.slicer.util.exportNode(Volume("head", scan()), str(image), {}, world=True)
    assert segment([image], bundle, tmp_path / "out", formats=["nifti", "nrrd"], **QUICK) == {}
    moved = Volume("head", scan(), transform=object())
    loaded = sys.modules["MedSegDiff"].load_case(tmp_path / "out" / "volume", moved)
    assert loaded.segmentation.reference is loaded.maps[0]


def test_points_that_are_placed_reach_the_command(
    app: Application, logic: Any, ends: Ends, tmp_path: Path
) -> None:
    program = script(
        tmp_path, "print(pathlib.Path(sys.argv[sys.argv.index('--at') + 1]).read_text())"
    )
    points = Markups(("F-1", (1.5, -2.0, 3.0), DEFINED), ("F-2", (0.0, 0.0, 0.0), 0))
    options = SegmentOptions("hippocampus_mr")
    started(logic, ends, Volume("a", scan()), options, points=points, executable=program)
    app.process_events(until=lambda: bool(ends.told))
    (markup,) = json.loads(ends.lines[0])["markups"]
    assert markup["coordinateSystem"] == "RAS"
    assert markup["controlPoints"] == [{"label": "F-1", "position": [1.5, -2.0, 3.0]}]

    nothing = Markups(("F-1", (0.0, 0.0, 0.0), 0))
    with pytest.raises(ValueError, match="clicks has no point"):
        started(logic, ends, Volume("a", scan()), options, points=nothing, executable=program)
    assert not logic.running and temporary(app) == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('medsegdiff: error: no such bundle'); sys.exit(2)", "no such bundle"),
        (
            "print(json.dumps({'case': 'volume', 'ok': False, 'error': 'is empty'})); sys.exit(1)",
            "is empty",
        ),
        ("print('written')", "exit code 0: written"),
        (
            "print(json.dumps({'case': 'volume', 'ok': True, 'folder': output + '/volume'}))",
            "cannot be loaded",
        ),
    ],
)
def test_the_reason_of_a_failure_is_told(
    app: Application, logic: Any, ends: Ends, tmp_path: Path, code: str, reason: str
) -> None:
    program = script(tmp_path, code)
    started(logic, ends, Volume("a", scan()), SegmentOptions("x"), executable=program)
    app.process_events(until=lambda: bool(ends.told))
    ((loaded, told),) = ends.told
    assert loaded is None and reason in told
    assert not logic.running and temporary(app) == []


def test_a_run_can_be_cancelled_and_leaves_no_file(
    app: Application, logic: Any, ends: Ends, tmp_path: Path
) -> None:
    program = script(tmp_path, "print('begun', flush=True); time.sleep(600)")
    volume, options = Volume("a", scan()), SegmentOptions("x")
    started(logic, ends, volume, options, executable=program)
    app.process_events(until=lambda: ends.lines == ["begun"])
    with pytest.raises(RuntimeError, match="in progress"):
        started(logic, ends, volume, options, executable=program)
    logic.cancel()
    app.process_events(until=lambda: bool(ends.told))
    assert ends.told == [(None, "cancelled")] and temporary(app) == []


def test_a_run_ends_with_slicer(app: Application, logic: Any, ends: Ends, tmp_path: Path) -> None:
    program = script(tmp_path, "print('begun', flush=True); time.sleep(600)")
    started(logic, ends, Volume("a", scan()), SegmentOptions("x"), executable=program)
    app.process_events(until=lambda: ends.lines == ["begun"])
    logic.close()
    assert temporary(app) == [] and not logic.running
    app.process_events(until=lambda: not app.waiting)
    assert ends.told == []


def test_without_the_command_nothing_begins(app: Application, logic: Any, ends: Ends) -> None:
    with pytest.raises(FileNotFoundError, match="Install medsegdiff"):
        started(logic, ends, Volume("a", scan()), SegmentOptions("x"), executable="no-such-program")
    assert not logic.running and temporary(app) == []


@pytest.fixture
def panel(app: Application, logic: Any, tmp_path: Path) -> Iterator[Any]:
    """The panel, filled in; the command writes its words, and then waits."""
    panel = sys.modules["MedSegDiff"].MedSegDiffWidget()
    panel.setup()
    panel.volume.currentNode.return_value = Volume("a", scan())
    panel.points.currentNode.return_value = None
    panel.bundle.text, panel.device.currentText = " my_bundle ", "cpu"
    panel.members.value, panel.steps.value, panel.trust.checked = 0, 3, False
    told = "print(json.dumps(sys.argv[1:])); print('a: 6 of 24 windows in 31 s', flush=True)"
    panel.command.currentPath = script(tmp_path, f"{told}; time.sleep(600)")
    yield panel
    panel.cleanup()


def lines_of(panel: Any) -> list[str]:
    return [call.args[0] for call in panel.log.appendPlainText.call_args_list]


def test_the_panel_hands_its_options_to_the_command(app: Application, panel: Any) -> None:
    assert (panel.start_button.enabled, panel.cancel_button.enabled) == (True, False)
    panel._on_start()
    assert (panel.start_button.enabled, panel.cancel_button.enabled) == (False, True)
    panel.progress.setRange.assert_called_with(0, 0)
    app.process_events(until=lambda: len(lines_of(panel)) == 2)
    words = json.loads(lines_of(panel)[0])
    assert words[words.index("--bundle") + 1] == "my_bundle"
    assert words[words.index("--steps") + 1] == "3"
    assert not {"--members", "--trust", "--at"} & set(words)
    panel.progress.setValue.assert_called_with(25)

    panel._on_cancel()
    app.process_events(until=lambda: panel.start_button.enabled)
    assert lines_of(panel)[-1] == "cancelled" and app.errors == []


def test_the_panel_shows_what_went_wrong(app: Application, panel: Any, tmp_path: Path) -> None:
    panel.command.currentPath = script(tmp_path, "print('medsegdiff: error: no'); sys.exit(2)")
    panel._on_start()
    app.process_events(until=lambda: bool(app.errors))
    assert app.errors == ["error: no"] and panel.start_button.enabled
    panel.volume.currentNode.return_value = None
    with pytest.raises(ValueError, match="choose a volume"):
        panel._on_start()
    assert "choose a volume" in app.errors[-1] and panel.start_button.enabled


def test_the_panel_shows_the_table(app: Application, panel: Any) -> None:
    table = Table("review")
    panel._on_end(sys.modules["MedSegDiff"].LoadedCase(None, [], table), "")
    panel.table.setMRMLTableNode.assert_called_once_with(table)
    assert app.errors == []


def test_the_module_has_the_classes_that_slicer_looks_for(logic: Any) -> None:
    module = sys.modules["MedSegDiff"]
    for ending in ("", "Widget", "Logic", "Test"):
        assert isinstance(getattr(module, f"MedSegDiff{ending}"), type)
