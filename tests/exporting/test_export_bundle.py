"""Exported files compute what the bundle computes, also by the page's program of numpy alone."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from medsegdiff.bundle import Bundle
from medsegdiff.cli.main import app
from medsegdiff.core.atomic_files import read_json
from medsegdiff.core.errors import InputError
from medsegdiff.exporting import export, exported_files
from medsegdiff.segmentation import EnsembleInferer, MemberNoise
from medsegdiff.segmentation.noise import blocks_of
from tests.tiny import tiny_segmenter

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how_to" / "export.md"
SIZE = (16, 24, 16)
RUNNER = CliRunner()


@pytest.fixture(scope="module")
def scan(cohort: Path) -> Path:
    return min((cohort.parent / "imagesTr").glob("*.nii.gz"))


@pytest.fixture(scope="module")
def as_onnx(bundle: Bundle, scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export in ONNX; without its packages, tests of it are skipped."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("exported")
    export(bundle, folder, size=SIZE, image=scan)
    return folder


def network_of(bundle: Bundle) -> Any:
    parser = bundle.parser("inference", {"device": "$torch.device('cpu')"})
    network = parser.get_parsed_content("network")
    network.precision = "float32"
    return network


def noises(bundle: Bundle, network: Any, count: int) -> Callable[[Sequence[int], Any], Any]:
    """The noise of our own command for a case, member by member, in the order it is drawn."""
    state = network.state_size(SIZE)
    made: dict[tuple[int, ...], MemberNoise] = {}
    place = tuple(slice(0, n) for n in SIZE)

    def noise(members: Sequence[int], mirror: Any) -> Any:
        key = tuple(members)
        if key in made:
            like = torch.empty(len(key), network.num_classes, *state)
            return made[key](like).numpy()
        made[key] = MemberNoise(
            0, "case", key, place, state, blocks_of(state), network.stride, tuple(mirror), 1.0
        )
        return made[key].start(network.num_classes).numpy()

    return noise


def page_sample() -> Callable[..., Any]:
    source = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)[0]
    space: dict[str, Any] = {}
    exec(compile(source, "page", "exec"), space)
    found: Callable[..., Any] = space["sample"]
    return found


@pytest.mark.parametrize("steps", [1, 3])
def test_the_page_samples_what_we_sample(
    bundle: Bundle, as_onnx: Path, tmp_path: Path, steps: int
) -> None:
    about = json.loads((as_onnx / "ensemble.json").read_text())
    parser = bundle.parser("inference", {"device": "$torch.device('cpu')", "steps": steps})
    inferer: EnsembleInferer = parser.get_parsed_content("inferer")
    network = network_of(bundle)
    from medsegdiff.exporting.sampler_steps import sampler_steps

    about["steps"] = [vars(step) for step in sampler_steps(inferer.sampling, network.process)]
    for names in about["networks"]:
        for name in names.values():
            (tmp_path / name).symlink_to(as_onnx / name)
    (tmp_path / "ensemble.json").write_text(json.dumps(about))
    image = torch.randn(1, *SIZE, generator=torch.Generator().manual_seed(1))
    ours = inferer.ensemble(image, network, "case")
    noise = noises(bundle, network, about["members"])
    mean, members = page_sample()(tmp_path, image.numpy(), noise)
    np.testing.assert_allclose(mean, ours.mean.numpy(), atol=1e-3)
    assert np.mean(members == ours.labels.numpy()) > 0.999
    assert len(np.unique(members)) > 1


def test_the_page_calibrates_as_we_do(bundle: Bundle, as_onnx: Path, tmp_path: Path) -> None:
    from medsegdiff.calibration.scaling import Scaling

    about = json.loads((as_onnx / "ensemble.json").read_text())
    scaling = Scaling((2.0, 0.5, 1.5), (0.0, 1.0, -1.0))
    image = np.random.default_rng(0).normal(size=(1, *SIZE)).astype(np.float32)
    found = []
    for calibration in (None, vars(scaling)):
        folder = tmp_path / str(calibration is None)
        folder.mkdir()
        for name in about["networks"][0].values():
            (folder / name).symlink_to(as_onnx / name)
        (folder / "ensemble.json").write_text(json.dumps({**about, "calibration": calibration}))
        noise = noises(bundle, network_of(bundle), about["members"])
        found.append(page_sample()(folder, image, noise)[0])
    np.testing.assert_allclose(found[1], scaling(found[0]), atol=1e-5)


def test_what_is_written_says_what_it_is(bundle: Bundle, as_onnx: Path) -> None:
    about = json.loads((as_onnx / "ensemble.json").read_text())
    assert sorted(path.name for path in as_onnx.iterdir()) == [
        "denoiser.onnx",
        "encoder.onnx",
        "ensemble.json",
    ]
    assert about["size"] == list(SIZE) and about["state"] == [8, 12, 8]
    assert about["bundle_hash"] == bundle.fingerprint()
    assert about["mirrors"] == [[], [0]] and len(about["steps"]) == 1
    spacing = next(t for t in about["preprocessing"] if t["_target_"] == "Spacingd")
    assert spacing["pixdim"] == [1.0, 1.0, 1.0]
    for checked in about["checked"]:
        for part in ("encoder", "denoiser"):
            assert set(checked[part]) == {"random", "image"}
            assert all(0.0 <= value < 1e-4 for value in checked[part].values())


def test_torch_reads_its_own_export(bundle: Bundle, tmp_path: Path) -> None:
    content = export(bundle, tmp_path / "out", form="torch", size=SIZE)
    network = network_of(bundle)
    image = torch.randn(1, 1, *SIZE)
    encode = exported_files.read_part(tmp_path / "out" / content["networks"][0]["encoder"])
    with torch.no_grad():
        torch.testing.assert_close(encode(image)[0], network(image), atol=1e-4, rtol=1e-3)
    with pytest.raises(InputError, match="already holds an export"):
        export(bundle, tmp_path / "out", form="torch", size=SIZE)


def test_a_file_that_computes_something_else_is_not_kept(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medsegdiff.exporting import export_bundle

    read = exported_files.read_part

    def wrong(path: Path) -> exported_files.Runner:
        run = read(path)
        return lambda *arguments: [output * 1.001 for output in run(*arguments)]

    monkeypatch.setattr(export_bundle, "read_part", wrong)
    with pytest.raises(
        InputError, match=r"encoder\.pt2, on random input: differs from the network"
    ):
        export(bundle, tmp_path / "out", form="torch", size=SIZE)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--size", "16,16"], 2, "--size: must be 3 whole numbers above 0"),
        (["--size", "a"], 2, "must be whole numbers with commas"),
    ],
)
def test_wrong_sizes_are_refused(
    bundle: Bundle, tmp_path: Path, words: list[str], code: int, told: str
) -> None:
    output = str(tmp_path / "out")
    result = RUNNER.invoke(app, ["export", str(bundle.root), "--trust", "--output", output, *words])
    assert result.exit_code == code and told in result.output


@pytest.mark.parametrize("quiet", [False, True])
def test_the_command_says_how_far_the_files_differ(
    bundle: Bundle, tmp_path: Path, quiet: bool
) -> None:
    output = tmp_path / "out"
    words = ["export", str(bundle.root), "--trust", "--output", str(output), "--format", "torch"]
    words += ["--size", ",".join(map(str, SIZE)), *(["-q"] if quiet else [])]
    result = RUNNER.invoke(app, words)
    assert result.exit_code == 0, result.output
    names = [name for names in read_json(output / "ensemble.json")["networks"] for name in names]
    lines = result.stdout.splitlines()
    if quiet:
        assert lines == []
    else:
        assert len(lines) == len(names) + 1 and lines[-1].endswith("ensemble.json: how to sample")
        assert all(re.search(r": differs from the network by \d", line) for line in lines[:-1])


def test_without_onnx_its_extra_is_named(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"pip install 'medsegdiff\[export\]'"):
        export(bundle, tmp_path / "out", size=SIZE)


@pytest.mark.parametrize("samples", [1, 2])
def test_denoisers_with_other_inputs_are_refused(samples: int) -> None:
    from medsegdiff.exporting.export_bundle import _refuse_other_denoisers

    conditioned = tiny_segmenter(
        2, samples_per_target=samples, self_conditioning=0.5 * (samples - 1)
    )
    with pytest.raises(InputError, match="samples_per_target above 1"):
        _refuse_other_denoisers(conditioned)
