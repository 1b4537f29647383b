"""Tables of figures in the explanations are those of the result files that they name."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "is_this_for_me.md"


def test_the_comparison_with_a_unet_is_the_benchmarks() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "plan_and_fit.json").read_text())
    text = PAGE.read_text("utf-8").partition("<!-- figures: plan_and_fit.json")[2]
    shown = re.findall(
        r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]*) ?\| ([\d.]*) ?\|$", text, re.M
    )
    assert [row[0] for row in shown] == sorted({row["data"] for row in rows})
    for data, *figures in shown:
        ours, unet = (
            next(r for r in rows if r["data"] == data and r["contender"] == contender)
            for contender in ("medsegdiff", "unet_mirrored")
        )
        wanted = [ours["dice"], unet["dice"], ours["ged2"], unet["ged2"]]
        assert figures == ["" if one is None else f"{one:.3f}" for one in wanted], data
        assert (ours["fold"], ours["minutes"], ours["seconds_cpu"]) == (2, 10, unet["seconds_cpu"])
