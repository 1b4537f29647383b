"""The set against raters whose distribution is known."""

import json
from pathlib import Path

from benchmarks.accuracy import known_disagreement


def test_an_untrained_set_is_far_from_the_truth_and_the_truth_from_itself_is_not(
    tmp_path: Path,
) -> None:
    words = ["--minutes", "0", "--cases", "10", "--judged", "1", "--output", str(tmp_path)]
    result = known_disagreement.main(words)
    written = json.loads((tmp_path / "known_disagreement.json").read_text())
    assert written == result and result["cases"] == 1 and result["training_steps"] == 0
    assert 0.0 <= result["ged2_floor"] < 0.5 * result["ged2"]
    assert 0.05 < result["marginal_error"] <= 1.0
