"""Nodes of the scene as files for the command, and its results as nodes of the scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
import vtk

from MedSegDiffLib.case_results import COLUMNS, DISPLAY_RANGES, CaseMap, Row, read_results, rows_of
from MedSegDiffLib.segment_command import write_points

COLOURS = {
    "mean": "vtkMRMLColorTableNodeFileViridis.txt",
    "variance": "vtkMRMLColorTableNodeFileInferno.txt",
}
"""Kind of a map -> node of its colours in 3D Slicer."""

TRANSPARENT_BELOW = 0.02
"""Share of a map's range below which it is transparent, so that the image is seen."""


@dataclass
class LoadedCase:
    """The nodes of a segmented volume.

    Attributes:
        segmentation: Segmentation node, a segment for each class.
        maps: Scalar volume nodes: mean and variance of each class.
        table: Table node: review score, warnings, volumes and expected Dice.
    """

    segmentation: Any
    maps: list[Any]
    table: Any


def written_volume(volume: Any, folder: Path) -> Path:
    """Write a volume where it lies in the world, transforms included, and not compressed.

    Args:
        volume: Scalar volume node.
        folder: Folder for the file.

    Returns:
        Path of the file.

    Raises:
        RuntimeError: 3D Slicer cannot write it.
    """
    path = folder / "volume.nrrd"
    if not slicer.util.exportNode(volume, str(path), {"useCompression": 0}, world=True):
        raise RuntimeError(f"{volume.GetName()} cannot be written to a file")
    return path


def written_points(points: Any, folder: Path) -> Path:
    """Write the points of a markups node that are placed.

    Args:
        points: Markups node.
        folder: Folder for the file.

    Returns:
        Path of the file.

    Raises:
        ValueError: no point is placed.
    """
    placed = [
        (points.GetNthControlPointLabel(n), list(points.GetNthControlPointPositionWorld(n)))
        for n in range(points.GetNumberOfControlPoints())
        if points.GetNthControlPointPositionStatus(n) == slicer.vtkMRMLMarkupsNode.PositionDefined
    ]
    if not placed:
        raise ValueError(f"{points.GetName()} has no point: place one, or choose no points")
    path = folder / "points.mrk.json"
    write_points(path, placed)
    return path


def load_case(folder: Path, volume: Any) -> LoadedCase:
    """Load the results of a case, and show them on its volume.

    The nodes forget the files, so that saving the scene writes them.

    Args:
        folder: Folder of the case, as the command leaves it.
        volume: Scalar volume node that was segmented.

    Raises:
        FileNotFoundError: a file is missing.
        RuntimeError: 3D Slicer cannot read a file.
    """
    results, name = read_results(folder), volume.GetName()
    title = {"name": f"{name} segmentation"}
    segmentation = slicer.util.loadSegmentation(str(results.segmentation), title)
    maps = [_loaded_map(one, name) for one in results.maps]
    # the results lie in the world, so a volume under a transform has another geometry
    reference = maps[0] if volume.GetParentTransformNode() else volume
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(reference)
    table = table_node(f"{name} review", rows_of(results.record))
    for node in (segmentation, *maps):
        _forget_file(node)
    _put_into_folder(f"{name} medsegdiff", [segmentation, *maps, table])
    kinds = [one.kind for one in results.maps]
    slicer.util.setSliceViewerLayers(
        background=volume, foreground=maps[kinds.index("variance")], foregroundOpacity=0.5
    )
    return LoadedCase(segmentation, maps, table)


def _loaded_map(one: CaseMap, name: str) -> Any:
    """Loads a map in the colours and the range of its kind."""
    properties = {"name": f"{name} {one.kind} {one.of_class}", "singleFile": True, "show": False}
    node = slicer.util.loadVolume(str(one.path), properties)
    low, high = DISPLAY_RANGES[one.kind]
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(COLOURS[one.kind])
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(low, high)
    display.AutoThresholdOff()
    display.SetThreshold(low + TRANSPARENT_BELOW * (high - low), high)
    display.ApplyThresholdOn()
    return node


def table_node(name: str, rows: Sequence[Row]) -> Any:
    """A new table node.

    Args:
        name: Name of the node.
        rows: Cells of each row, under ``COLUMNS``.
    """
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
    for heading, cells in zip(COLUMNS, zip(*rows)):
        column = vtk.vtkStringArray()
        column.SetName(heading)
        for cell in cells:
            column.InsertNextValue(cell)
        node.AddColumn(column)
    node.SetUseColumnTitleAsColumnHeader(True)
    return node


def _forget_file(node: Any) -> None:
    storage = node.GetStorageNode()
    if storage is not None:
        slicer.mrmlScene.RemoveNode(storage)
        node.SetAndObserveStorageNodeID(None)


def _put_into_folder(name: str, nodes: Sequence[Any]) -> None:
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), name)
    for node in nodes:
        hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), folder)
