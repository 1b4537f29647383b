"""Arrays of others: a pickle calls nothing, and damage is told."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.other_models.array_files import read_plain_pickle, read_probabilities


class _Program:
    """Calls a program when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_is_a_program_is_refused_and_not_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"sitk_stuff": _Program(made)}))
    with pytest.raises(InputError, match="not a pickle of plain values"):
        read_plain_pickle(path)
    assert not made.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_and_arrays_come_out(tmp_path: Path, protocol: int) -> None:
    content = {"spacing": (1.0, np.float64(2.0)), "affine": np.eye(4), "box": [[0, np.int64(3)]]}
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    found = read_plain_pickle(path)
    np.testing.assert_array_equal(found.pop("affine"), content.pop("affine"))
    assert found == content


def test_a_half_written_pickle_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"affine": np.eye(4)})[:30])
    with pytest.raises(InputError, match=r"is not a pickle of|cannot be read as a pickle"):
        read_plain_pickle(path)


def test_arrays_of_other_names_shapes_and_types_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, logits=np.zeros((2, 3, 3)))
    with pytest.raises(InputError, match=r"no array probabilities or softmax, but logits"):
        read_probabilities(path)
    np.savez_compressed(path, probabilities=np.zeros(3))
    with pytest.raises(InputError, match="not maps of numbers"):
        read_probabilities(path)
    np.savez_compressed(path, probabilities=np.array([[["a"]]]))
    with pytest.raises(InputError, match="not maps of numbers"):
        read_probabilities(path)
    np.savez(path, probabilities=np.array([None, {}], dtype=object))
    with pytest.raises(InputError, match="cannot be read as an npz file"):
        read_probabilities(path)


def test_more_than_the_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, probabilities=np.full((2, 30, 30, 30), 0.5, np.float32))
    monkeypatch.setenv("MEDSEGDIFF_MAX_GIB", "0.0001")
    with pytest.raises(InputError, match="MEDSEGDIFF_MAX_GIB"):
        read_probabilities(path)


def test_version_one_called_it_softmax(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, softmax=np.full((2, 3, 3, 3), 0.5, np.float16))
    assert read_probabilities(path).shape == (2, 3, 3, 3)
