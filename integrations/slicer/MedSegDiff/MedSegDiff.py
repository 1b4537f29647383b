"""Segmentation in 3D Slicer by the command ``medsegdiff segment``, in an environment of its own.

``MedSegDiffLogic`` writes the volume to a temporary file, runs the command while 3D Slicer goes on,
and loads what it leaves. ``MedSegDiffLib`` has the parts: the command and its results, for which no
3D Slicer is needed, and the nodes of the scene.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ctk
import qt
import slicer
import vtk
from MedSegDiffLib.scene_nodes import (
    LoadedCase,
    load_case,
    table_node,
    written_points,
    written_volume,
)
from MedSegDiffLib.segment_command import (
    COMMAND,
    CommandRun,
    SegmentOptions,
    case_told,
    clean_environment,
    find_executable,
    reason_of_failure,
    segment_command,
    share_done,
)
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

POLL_MS = 100
"""Time in ms between two looks at the output of the command."""


class MedSegDiff(ScriptedLoadableModule):
    """The module as 3D Slicer lists it.

    Args:
        parent: Module in the application.
    """

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "MedSegDiff"
        self.parent.categories = ["Segmentation"]
        self.parent.contributors = ["The medsegdiff authors"]
        self.parent.helpText = (
            "Draws many plausible masks of a volume, and loads one mask, the mean probability and "
            "the variance of each class, and a table that says how far to trust them. It runs the "
            "command medsegdiff, which is installed apart from 3D Slicer. "
            "For research; not a medical device."
        )
        self.parent.acknowledgementText = ""


@dataclass
class _Job:
    """A segmentation in progress."""

    volume: Any
    folder: Path
    run: CommandRun
    on_line: Callable[[str], None]
    on_end: Callable[[LoadedCase | None, str], None]
    lines: list[str]


class MedSegDiffLogic(ScriptedLoadableModuleLogic):
    """Runs the command on a volume of the scene, and loads the results."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self._job: _Job | None = None

    @property
    def running(self) -> bool:
        """Whether a segmentation is in progress."""
        return self._job is not None

    def start(
        self,
        volume: Any,
        options: SegmentOptions,
        points: Any = None,
        executable: str = "",
        on_line: Callable[[str], None] = print,
        on_end: Callable[[LoadedCase | None, str], None] = lambda loaded, reason: None,
    ) -> None:
        """Start the segmentation of a volume, and return at once.

        Args:
            volume: Scalar volume node.
            options: Choice of the user.
            points: Markups node with the places to segment; None: all of the volume, or the places
                that the bundle finds.
            executable: Path or name of the command; empty: ``medsegdiff`` on the path.
            on_line: Function of each line of the command's output.
            on_end: Function of the loaded nodes, or of None and the reason of the failure.

        Raises:
            FileNotFoundError: there is no such command.
            RuntimeError: a segmentation is in progress, or the volume cannot be written.
            ValueError: the markups node has no point.
        """
        if self._job is not None:
            raise RuntimeError("a segmentation is in progress: wait for it, or cancel it")
        environment = clean_environment(slicer.util.startupEnvironment(), slicer.app.slicerHome)
        program = find_executable(executable, environment.get("PATH", ""))
        folder = Path(tempfile.mkdtemp(prefix="medsegdiff-", dir=slicer.app.temporaryPath))
        try:
            image = written_volume(volume, folder)
            places = None if points is None else written_points(points, folder)
            command = segment_command(program, image, folder / "results", options, places)
            run = CommandRun(command, environment)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._job = _Job(volume, folder, run, on_line, on_end, [])
        qt.QTimer.singleShot(POLL_MS, self._poll)

    def cancel(self) -> None:
        """End the command; what it has written is removed."""
        if self._job is not None:
            self._job.run.cancel()

    def close(self) -> None:
        """End the command at once and tell nobody, as when 3D Slicer ends."""
        job, self._job = self._job, None
        if job is not None:
            job.run.end()
            shutil.rmtree(job.folder, ignore_errors=True)

    def _poll(self) -> None:
        job = self._job
        if job is None:
            return
        for line in job.run.new_lines():
            job.lines.append(line)
            job.on_line(line)
        code = job.run.exit_code
        if code is None:
            qt.QTimer.singleShot(POLL_MS, self._poll)
            return
        self._job = None
        try:
            loaded, reason = self._result(job, code)
        finally:
            shutil.rmtree(job.folder, ignore_errors=True)
        job.on_end(loaded, reason)

    def _result(self, job: _Job, code: int) -> tuple[LoadedCase | None, str]:
        """The loaded nodes, or None and the reason."""
        if job.run.cancelled:
            return None, "cancelled"
        told = next(filter(None, map(case_told, reversed(job.lines))), None)
        if code or not told:
            return None, reason_of_failure(job.lines, code)
        try:
            return load_case(Path(told["folder"]), job.volume), ""
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            return None, f"the results cannot be loaded: {error}"


class MedSegDiffWidget(ScriptedLoadableModuleWidget):
    """The panel of the module: inputs, options, log, and the table."""

    def setup(self) -> None:
        """Build the panel."""
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = MedSegDiffLogic()
        self._add_inputs()
        self._add_options()
        self._add_buttons()
        self._add_results()
        self.layout.addStretch(1)
        self._show_running(False)

    def cleanup(self) -> None:
        """End the command when the module is closed."""
        self.logic.close()

    def _add_inputs(self) -> None:
        form = self._form("Input")
        self.volume = _node_selector("vtkMRMLScalarVolumeNode")
        self.volume.showChildNodeTypes = False
        form.addRow("Volume:", self.volume)
        self.points = _node_selector("vtkMRMLMarkupsFiducialNode", optional=True)
        self.points.toolTip = "Places to segment, for bundles that take clicks; None: all of it"
        form.addRow("Points:", self.points)
        self.bundle = qt.QLineEdit(_setting("Bundle", "hippocampus_mr"))
        self.bundle.toolTip = "Name of a shipped bundle, a folder, or models:/name/version"
        form.addRow("Bundle:", self.bundle)

    def _add_options(self) -> None:
        form = self._form("Options")
        self.members, self.steps = _number_or_default(), _number_or_default()
        form.addRow("Members:", self.members)
        form.addRow("Steps:", self.steps)
        self.device = qt.QComboBox()
        self.device.addItems(["auto", "cpu", "cuda"])
        form.addRow("Device:", self.device)
        self.trust = qt.QCheckBox("Let this bundle run, whose configurations are programs")
        self.trust.toolTip = "Needed once for a bundle from elsewhere. Read it first"
        form.addRow("Trust:", self.trust)
        self.command = ctk.ctkPathLineEdit()
        self.command.filters = ctk.ctkPathLineEdit.Files
        self.command.currentPath = _setting("Command", "")
        self.command.toolTip = f"Path of the command; empty: {COMMAND} on the path"
        form.addRow("Command:", self.command)

    def _add_buttons(self) -> None:
        self.start_button, self.cancel_button = qt.QPushButton("Segment"), qt.QPushButton("Cancel")
        self.start_button.connect("clicked(bool)", self._on_start)
        self.cancel_button.connect("clicked(bool)", self._on_cancel)
        row = qt.QHBoxLayout()
        row.addWidget(self.start_button)
        row.addWidget(self.cancel_button)
        self.layout.addLayout(row)

    def _add_results(self) -> None:
        self.progress = qt.QProgressBar()
        self.layout.addWidget(self.progress)
        self.log = qt.QPlainTextEdit()
        self.log.readOnly = True
        self.layout.addWidget(self.log)
        self.table = slicer.qMRMLTableView()
        self.layout.addWidget(self.table)

    def _form(self, title: str) -> Any:
        section = ctk.ctkCollapsibleButton()
        section.text = title
        self.layout.addWidget(section)
        return qt.QFormLayout(section)

    def _on_start(self, _: bool = False) -> None:
        with slicer.util.tryWithErrorDisplay("The segmentation cannot start."):
            if self.volume.currentNode() is None:
                raise ValueError("choose a volume")
            command = self.command.currentPath
            qt.QSettings().setValue("MedSegDiff/Command", command)
            qt.QSettings().setValue("MedSegDiff/Bundle", self.bundle.text)
            self.log.clear()
            self.logic.start(
                self.volume.currentNode(),
                self._options(),
                self.points.currentNode(),
                command,
                on_line=self._on_line,
                on_end=self._on_end,
            )
            self._show_running(True)

    def _on_cancel(self, _: bool = False) -> None:
        self.logic.cancel()

    def _options(self) -> SegmentOptions:
        return SegmentOptions(
            self.bundle.text.strip(),
            self.members.value or None,
            self.steps.value or None,
            self.device.currentText,
            self.trust.checked,
        )

    def _on_line(self, line: str) -> None:
        self.log.appendPlainText(line)
        share = share_done(line)
        if share is not None:
            self.progress.setRange(0, 100)
            self.progress.setValue(round(100 * share))

    def _on_end(self, loaded: LoadedCase | None, reason: str) -> None:
        self._show_running(False)
        if loaded is not None:
            self.table.setMRMLTableNode(loaded.table)
            self.log.appendPlainText("loaded")
            return
        self.log.appendPlainText(reason)
        if reason != "cancelled":
            slicer.util.errorDisplay(reason, windowTitle="MedSegDiff")

    def _show_running(self, running: bool) -> None:
        self.start_button.enabled, self.cancel_button.enabled = not running, running
        self.progress.setRange(0, 0 if running else 100)  # 0 to 0: busy
        self.progress.setValue(0)


def _setting(name: str, default: str) -> str:
    return str(slicer.util.settingsValue(f"MedSegDiff/{name}", default))


def _node_selector(node_type: str, optional: bool = False) -> Any:
    """A selector of a node; an optional one begins with none."""
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = [node_type]
    selector.noneEnabled = optional
    selector.addEnabled = selector.removeEnabled = False
    selector.setMRMLScene(slicer.mrmlScene)
    if optional:
        selector.setCurrentNode(None)
    return selector


def _number_or_default() -> Any:
    box = qt.QSpinBox()
    box.setRange(0, 1000)
    box.specialValueText = "as in the bundle"
    return box


class MedSegDiffTest(ScriptedLoadableModuleTest):
    """The tests that 3D Slicer runs from its *Reload and Test*."""

    def setUp(self) -> None:
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Run all tests."""
        for test in (self.test_volume_keeps_its_place, self.test_table):
            self.setUp()
            test()

    def test_volume_keeps_its_place(self) -> None:
        """A volume under a transform is written where it is seen."""
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "moved")
        image = vtk.vtkImageData()
        image.SetDimensions(4, 5, 6)
        image.AllocateScalars(vtk.VTK_FLOAT, 1)
        volume.SetAndObserveImageData(image)
        volume.CreateDefaultDisplayNodes()
        moved = vtk.vtkMatrix4x4()
        moved.SetElement(0, 3, 12.5)
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        transform.SetMatrixTransformToParent(moved)
        volume.SetAndObserveTransformNodeID(transform.GetID())
        with tempfile.TemporaryDirectory() as folder:
            written = slicer.util.loadVolume(str(written_volume(volume, Path(folder))))
        self.assertAlmostEqual(written.GetOrigin()[0], 12.5)
        self.assertEqual(written.GetImageData().GetDimensions(), (4, 5, 6))

    def test_table(self) -> None:
        """Rows become a table of three columns."""
        node = table_node("review", [("review score", "", "0.83"), ("volume", "head", "1.62 ml")])
        self.assertEqual(node.GetNumberOfColumns(), 3)
        self.assertEqual(node.GetCellText(1, 2), "1.62 ml")
