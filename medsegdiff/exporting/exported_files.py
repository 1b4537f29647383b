"""Files of exported networks: written, read back, and compared with the network they are of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medsegdiff.core.errors import InputError, needs_extra

ExportFormat = Literal["onnx", "torch"]

ENDINGS: dict[ExportFormat, str] = {"onnx": ".onnx", "torch": ".pt2"}

TOLERANCE = 1e-4
"""Greatest difference from the network, relative to the greatest value of an output."""

Runner = Callable[..., Sequence[Tensor]]


def write_part(
    part: nn.Module, arguments: Sequence[Tensor], path: Path, form: ExportFormat, members: bool
) -> None:
    """Write a part of a network.

    Args:
        part: Part in evaluation mode.
        arguments: Arguments that it is traced with.
        path: Path of the file.
        form: Format of the file.
        members: Whether the first axis of the first and third argument may have any length from 2.

    Raises:
        InputError: packages for ONNX are not installed.
    """
    shapes: Any = None
    if members:
        many = {0: torch.export.Dim("members", min=2)}
        shapes = (many, None, many, tuple(None for _ in arguments[3:]))
    with torch.no_grad():
        program = torch.export.export(part, tuple(arguments), dynamic_shapes=shapes, strict=False)
    _remove_unused(program)
    if form == "torch":
        torch.export.save(program, path)
        return
    with needs_extra("export --format onnx", "onnxscript", "export"):
        import onnxscript  # noqa: F401
    converted = torch.onnx.export(program, tuple(arguments), dynamo=True, verbose=False)
    if converted is None:  # only without dynamo
        raise ValueError("torch gave no ONNX program.")
    converted.save(path, external_data=False)


def _remove_unused(program: torch.export.ExportedProgram) -> None:
    """Remove what only constants were made of, as frequencies; ONNX may not have such operations.

    Checks of the kind of a tensor, which torch adds, would keep it alive.
    """
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()


def read_part(path: Path) -> Runner:
    """The function that a file of an exported part holds: tensors in, tensors out, on the CPU.

    Raises:
        InputError: onnxruntime is not installed.
    """
    if path.suffix == ".pt2":
        module = torch.export.load(path).module()
        return lambda *arguments: module(*arguments)
    with needs_extra("export --format onnx", "onnxruntime", "export"):
        import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(*arguments: Tensor) -> list[Tensor]:
        given = {n: a.numpy() for n, a in zip(names, arguments, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, given)]

    return run


@torch.no_grad()
def difference(part: nn.Module, run: Runner, arguments: Sequence[Tensor]) -> float:
    """Greatest difference of the outputs, relative to the greatest value of each output."""
    wanted, found = part(*arguments), run(*arguments)
    pairs = zip(wanted, found, strict=True)
    shares = (((a - b).abs().max() / a.abs().max().clamp(min=1e-12)) for a, b in pairs)
    return max(float(share) for share in shares)


def check_difference(name: str, value: float) -> None:
    """Refuse a part that does not compute what the network does.

    Raises:
        InputError: the difference is above ``TOLERANCE``.
    """
    if not value <= TOLERANCE:  # NaN as well
        rule = f"differs from the network by {value:.2g}, more than {TOLERANCE:g}"
        raise InputError(
            name, rule, "Try --format torch, or another version of torch or onnxruntime"
        )
