"""As much of 3D Slicer as the module's logic touches: a scene of nodes, files in and out, a timer.

Volumes go through real files (SimpleITK, as in 3D Slicer). Nodes know only methods that 3D Slicer
5.6 and later have; what these do there, no test here can say.
"""

from __future__ import annotations

import os
import time
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import SimpleITK as sitk

DISPLAY = [
    *("SetAndObserveColorNodeID", "AutoWindowLevelOff", "SetWindowLevelMinMax"),
    *("AutoThresholdOff", "SetThreshold", "ApplyThresholdOn"),
]
HIERARCHY = ["CreateFolderItem", "GetSceneItemID", "SetItemParent", "GetItemByDataNode"]
CONTROLS = [
    *("QCheckBox", "QComboBox", "QFormLayout", "QHBoxLayout", "QLineEdit", "QPlainTextEdit"),
    *("QProgressBar", "QPushButton", "QSettings", "QSpinBox"),
]
DEFINED = 2
"""Value of ``vtkMRMLMarkupsNode.PositionDefined``."""


class Volume:
    """A scalar volume node.

    Args:
        name: Name of the node.
        image: Image in the world.
        transform: Transform node above it, or None.
    """

    def __init__(self, name: str, image: sitk.Image, transform: Any = None) -> None:
        self.name, self.image, self.transform = name, image, transform
        self.display = MagicMock(spec=DISPLAY)
        self.storage: object | None = object()

    def GetName(self) -> str:
        return self.name

    def GetParentTransformNode(self) -> Any:
        return self.transform

    def GetDisplayNode(self) -> MagicMock:
        return self.display

    def GetStorageNode(self) -> object | None:
        return self.storage

    def SetAndObserveStorageNodeID(self, storage: None) -> None:
        self.storage = storage


class Segmentation(Volume):
    """A segmentation node."""

    reference: Any = None

    def SetReferenceImageGeometryParameterFromVolumeNode(self, volume: Any) -> None:
        self.reference = volume


class Markups:
    """A markups node.

    Args:
        points: Label, position (RAS+ in mm) and status of each point.
    """

    def __init__(self, *points: tuple[str, tuple[float, float, float], int]) -> None:
        self.points = points

    def GetName(self) -> str:
        return "clicks"

    def GetNumberOfControlPoints(self) -> int:
        return len(self.points)

    def GetNthControlPointLabel(self, n: int) -> str:
        return self.points[n][0]

    def GetNthControlPointPositionWorld(self, n: int) -> tuple[float, float, float]:
        return self.points[n][1]

    def GetNthControlPointPositionStatus(self, n: int) -> int:
        return self.points[n][2]


class StringArray(list[str]):
    """``vtkStringArray``."""

    name = ""

    def SetName(self, name: str) -> None:
        self.name = name

    def InsertNextValue(self, value: str) -> None:
        self.append(value)


class Table:
    """A table node."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.columns: list[StringArray] = []

    def AddColumn(self, column: StringArray) -> None:
        self.columns.append(column)

    def SetUseColumnTitleAsColumnHeader(self, use: bool) -> None:
        assert use


class Scene:
    """The scene, which knows what was removed from it."""

    def __init__(self) -> None:
        self.removed: list[object] = []
        self.hierarchy = MagicMock(spec=HIERARCHY)

    def AddNewNodeByClass(self, kind: str, name: str) -> Table:
        assert kind == "vtkMRMLTableNode"
        return Table(name)

    def RemoveNode(self, node: object) -> None:
        self.removed.append(node)

    def GetSubjectHierarchyNode(self) -> MagicMock:
        return self.hierarchy


class Panel:
    """``ScriptedLoadableModuleWidget``."""

    layout = MagicMock()

    def setup(self) -> None:
        """Nothing to add to an empty panel."""


class Application:
    """The modules that 3D Slicer's Python has.

    Args:
        folder: Folder for temporary files.
    """

    def __init__(self, folder: Path) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.layers: dict[str, Any] = {}
        self.exported: dict[str, Any] = {}
        self.errors: list[str] = []
        self.slicer = _module(
            "slicer",
            app=SimpleNamespace(slicerHome="/opt/slicer", temporaryPath=str(folder)),
            mrmlScene=Scene(),
            util=SimpleNamespace(
                startupEnvironment=lambda: dict(os.environ),
                exportNode=self._export,
                loadVolume=lambda path, properties: self._load(Volume, path, properties),
                loadSegmentation=lambda path, properties: self._load(
                    Segmentation, path, properties
                ),
                setSliceViewerLayers=lambda **layers: self.layers.update(layers),
                settingsValue=lambda key, default: default,
                tryWithErrorDisplay=self._try,
                errorDisplay=lambda text, windowTitle: self.errors.append(text),
            ),
            qMRMLNodeComboBox=_control,
            qMRMLTableView=_control,
            vtkMRMLMarkupsNode=SimpleNamespace(PositionDefined=DEFINED),
        )
        self.modules = {
            "slicer": self.slicer,
            "slicer.ScriptedLoadableModule": _module(
                "slicer.ScriptedLoadableModule",
                ScriptedLoadableModule=type("Base", (), {}),
                ScriptedLoadableModuleLogic=type("Logic", (), {}),
                ScriptedLoadableModuleTest=type("Test", (unittest.TestCase,), {}),
                ScriptedLoadableModuleWidget=Panel,
            ),
            "qt": _module(
                "qt",
                QTimer=SimpleNamespace(singleShot=self._single_shot),
                **dict.fromkeys(CONTROLS, _control),
            ),
            "ctk": _module("ctk", ctkCollapsibleButton=_control, ctkPathLineEdit=MagicMock()),
            "vtk": _module("vtk", vtkStringArray=StringArray),
        }

    def process_events(self, until: Callable[[], bool], seconds: float = 120.0) -> None:
        """Call what the timer has to call, until something is so."""
        deadline = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < deadline, "nothing happened"
            time.sleep(0.01)
            calls, self.waiting = self.waiting, []
            for call in calls:
                call()

    @contextmanager
    def _try(self, message: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.errors.append(f"{message} {error}")
            raise

    def _single_shot(self, milliseconds: int, call: Callable[[], None]) -> None:
        assert milliseconds > 0
        self.waiting.append(call)

    def _export(self, node: Volume, path: str, properties: dict[str, Any], world: bool) -> bool:
        self.exported = {"properties": properties, "world": world}
        sitk.WriteImage(node.image, path)
        return True

    @staticmethod
    def _load(kind: type[Volume], path: str, properties: dict[str, Any]) -> Volume:
        return kind(properties["name"], sitk.ReadImage(path))


def scan() -> sitk.Image:
    """An oblique volume that is not isotropic."""
    values = np.random.default_rng(0).normal(100, 20, (12, 15, 18)).astype(np.float32)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((1.0, 1.1, 1.25))
    image.SetOrigin((-40.25, 10.0, 5.5))
    cos, sin = np.cos(0.3), np.sin(0.3)
    image.SetDirection((cos, -sin, 0.0, sin, cos, 0.0, 0.0, 0.0, 1.0))
    return image


def _control(*_: Any) -> MagicMock:
    """A widget of Qt, which takes every call."""
    return MagicMock()


def _module(name: str, **content: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(content)
    return module
