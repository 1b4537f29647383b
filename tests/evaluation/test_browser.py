"""The page in a real browser: from a file, without a network, on a wide and on a narrow screen."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medsegdiff.data.manifest import load_manifest
from medsegdiff.data.predictions import foreground, read_reference
from medsegdiff.evaluation.folder import evaluate
from medsegdiff.evaluation.viewer import niivue
from medsegdiff.phantoms.cohort import write_cohort
from medsegdiff.writers.nifti import write_nifti

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
TALL = 7500
PROBE = """
<script>
function probed() {
  var canvas = document.getElementById("viewer-canvas");
  return {
    inner: innerWidth,
    scroll: document.documentElement.scrollWidth,
    loaded: performance.getEntriesByType("resource").map(function (e) { return e.name; }),
    ready: canvas ? canvas.dataset.ready : "",
    canvas: canvas ? canvas.getBoundingClientRect().toJSON() : {},
    readout: canvas ? document.getElementById("viewer-readout").textContent : "",
    columns: Array.from(document.querySelectorAll(".by-kind thead .of")).filter(
      function (e) { return e.offsetWidth; }).map(function (e) { return e.textContent; })
  };
}
setTimeout(function () {
  var before = probed();
  document.querySelector("#kinds [data-kind=sets]").click();
  Array.from(document.querySelectorAll("#viewer-cases button")).slice(1).forEach(function (b) {
    b.click();
  });
  document.querySelectorAll(".sliders input").forEach(function (slider) {
    slider.value = 0.7;
    slider.dispatchEvent(new Event("input"));
  });
  setTimeout(function () {
    parent.postMessage(JSON.stringify({ before: before, after: probed() }), "*");
  }, 3000);
}, 7000);
</script>
"""
FRAME = """<!doctype html>
<body style="margin:0">
<pre id="probe"></pre>
<iframe src="probed.html" style="border:0;width:WIDTHpx;height:HEIGHTpx"></iframe>
<script>
addEventListener("message", function (event) {
  document.getElementById("probe").textContent = event.data;
});
</script>
"""
# A window cannot be as narrow as a phone's, a frame can.

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium to open the page with"),
    pytest.mark.timeout(600),
]


def chromium(page: Path, width: int, profile: Path, *options: str) -> tuple[str, list[str]]:
    """Open a page; what it prints, and the lines of the console."""
    done = subprocess.run(
        [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--hide-scrollbars"),
            *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}"),
            *("--enable-logging=stderr", "--virtual-time-budget=12000"),
            *(f"--window-size={width},{TALL}", *options, page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def probe(page: Path, width: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Measures of the page once it has settled, and after every control of it was used.

    There must be no line on its console.
    """
    probed = page.read_text(encoding="utf-8") + PROBE
    (folder / "probed.html").write_text(probed, encoding="utf-8")
    frame = folder / "frame.html"
    frame.write_text(FRAME.replace("WIDTH", str(width)).replace("HEIGHT", str(TALL)))
    dom, console = chromium(frame, 1400, folder / "profile", "--dump-dom")
    assert console == []
    found = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)
    assert found is not None
    told: dict[str, dict[str, Any]] = json.loads(html.unescape(found[1]))
    return told


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on volumes with four raters; the members are the raters and their majority."""
    root = tmp_path_factory.mktemp("browser")
    manifest = load_manifest(write_cohort(root / "data", cases=4, size=20, raters=4))
    rng = np.random.default_rng(0)
    for case in manifest.cases:
        annotations, geometry = read_reference(case, manifest)
        members = np.roll(annotations, int(rng.integers(1, 3)), axis=1)
        path = f"{root}/out/{case.id}/{case.id}_"
        for value, slug in foreground(manifest).items():
            mean = (members == value).mean(axis=0)
            write_nifti(f"{path}mean_{slug}.nii.gz", mean, geometry, dtype="float32")
            variance = mean * (1 - mean)
            write_nifti(f"{path}variance_{slug}.nii.gz", variance, geometry, dtype="float32")
        write_nifti(f"{path}seg.nii.gz", members[0], geometry, dtype="uint8")
        stacked = np.moveaxis(members, 0, -1)
        write_nifti(f"{path}members.nii.gz", stacked, geometry, dtype="uint8")
        Path(f"{path}run.json").write_text(json.dumps({"members": 4}))
    assert evaluate(root / "data", root / "out", root / "report") == {}
    return root / "report" / "report.html"


@pytest.mark.parametrize("width", [1280, 390])
def test_page_fits_the_screen_loads_nothing_and_shows_volumes(
    page: Path, tmp_path: Path, width: int
) -> None:
    both = probe(page, width, tmp_path)
    told, after = both["before"], both["after"]
    for found in (told, after):
        assert found["inner"] == width
        assert found["scroll"] <= width
        assert [name for name in found["loaded"] if not name.startswith(("data:", "blob:"))] == []
    assert "HD95 (mm)" in told["columns"] and "GED²" not in told["columns"]
    assert "HD95 (mm)" not in after["columns"] and "GED²" in after["columns"]
    if niivue() is None:
        pytest.skip("nilearn 0.14, which has the viewer's code, is not installed")
    assert told["ready"] == "true", told["readout"]
    assert told["readout"].startswith("At ") and "variance" in told["readout"]
    assert after["readout"].startswith("At ") and after["readout"] != told["readout"]
    shot = tmp_path / "shot.png"
    _, console = chromium(page, width, tmp_path / "profile", f"--screenshot={shot}")
    assert console == []
    assert_drawn(shot, told["canvas"])


def assert_drawn(shot: Path, box: dict[str, float]) -> None:
    """There is an image in a part of the screenshot, and a mask in colour above it."""
    left, top, right, bottom = (round(box[side]) for side in ("left", "top", "right", "bottom"))
    assert right - left > 250 and bottom - top > 200
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("RGB").crop((left, top, right, bottom))).astype(int)
    spread = pixels.max(axis=-1) - pixels.min(axis=-1)
    assert np.mean((pixels.max(axis=-1) > 40) & (spread < 10)) > 0.1
    assert np.mean(spread > 30) > 0.01


def test_an_error_on_the_console_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<script>nowhere.call()</script>")
    _, console = chromium(page, 400, tmp_path / "profile", "--dump-dom")
    assert any("nowhere" in line for line in console)
