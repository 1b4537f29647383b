"""Which precision a device is given, and that what surrounds it is left as it is."""

import pytest
import torch

from medsegdiff.models import precision
from medsegdiff.models.precision import autocast, has_bfloat16, resolve

CPU = torch.device("cpu")


@pytest.mark.parametrize("supported", [True, False])
def test_auto_is_bfloat16_where_the_device_is_made_for_it(
    supported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: supported)
    expected = torch.bfloat16 if supported else torch.float32
    with autocast("auto", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected
    assert resolve("auto", CPU) == ("bfloat16" if supported else "float32")


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_precision_that_is_named_is_taken(name: str) -> None:
    assert resolve(name, CPU) == name  # type: ignore[arg-type]
    with autocast(name, CPU):
        assert str((torch.ones(2, 2) @ torch.ones(2, 2)).dtype) == f"torch.{name}"


def test_float32_does_not_end_an_outer_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16), autocast("float32", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_devices_that_only_imitate_it_are_left_out() -> None:
    assert has_bfloat16(torch.device("meta")) is False
