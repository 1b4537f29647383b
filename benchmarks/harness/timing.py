"""Time of one image: contenders in turn within one process, each in its fastest form.

In turn, so that whatever else the machine does hits all of them alike.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from benchmarks.harness.contender import Contender, Prediction
from benchmarks.harness.data import Study

logger = logging.getLogger(__name__)

SLOW_SECONDS = 4.0
"""What takes longer is tried once in each form and takes part in the first round alone."""


@dataclass(frozen=True)
class Form:
    """How a network's weights lie in memory, and what it computes in."""

    memory_format: str = "contiguous"
    precision: str = "fp32"

    def place(self, network: nn.Module, dims: int) -> None:
        """Lay the weights so."""
        last = torch.channels_last if dims == 2 else torch.channels_last_3d
        layout = last if self.memory_format == "channels_last" else torch.contiguous_format
        network.to(memory_format=layout)  # type: ignore[call-overload]


FORMS = tuple(Form(*each) for each in product(("contiguous", "channels_last"), ("fp32", "bf16")))


@torch.no_grad()
def run(work: Callable[[], Prediction], form: Form, device: torch.device) -> Prediction:
    """Do some work of a contender in a form's precision."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=form.precision == "bf16"):
        return work()


def seconds_of(contender: Contender, image: Tensor, form: Form) -> float:
    """Wall time of one image, from the normalised image to mean and label maps on the CPU."""
    started = time.perf_counter()
    run(lambda: contender.work(image), form, image.device)
    return (time.perf_counter() - started) * contender.repeats


def fastest_form(contender: Contender, image: Tensor, dims: int) -> Form:
    """The form that needs the least time for an image; its weights are left so.

    A form that a network cannot take (a Fourier transform in bf16, say) is passed over.
    """
    found: dict[Form, float] = {}
    for form in FORMS:
        for network in contender.networks:
            form.place(network, dims)
        try:
            first = seconds_of(contender, image, form)  # the first run also sets up the kernels
            slow = first / contender.repeats > SLOW_SECONDS
            again = [] if slow else [seconds_of(contender, image, form) for _ in range(2)]
        except (RuntimeError, NotImplementedError) as error:
            logger.info("%s cannot run in %s: %s", contender.name, form, error)
            continue
        found[form] = min([first, *again])
    if not found:
        raise RuntimeError(f"{contender.name} runs in no form")
    best = min(found, key=lambda form: found[form])
    for network in contender.networks:
        best.place(network, dims)
    return best


def interleaved(
    contenders: Sequence[Contender], forms: dict[str, Form], images: Sequence[Tensor], rounds: int
) -> dict[str, float]:
    """Median milliseconds an image, over images and rounds.

    Args:
        contenders: Contenders on their device, in their forms.
        forms: Form of each, by name.
        images: Images (C, *spatial).
        rounds: Number of times that all images are taken.
    """
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number, image in product(range(rounds), images):
        for contender in contenders:
            before = times[contender.name]
            if number and statistics.median(before) > SLOW_SECONDS * contender.repeats:
                continue
            before.append(seconds_of(contender, image, forms[contender.name]))
    return {name: 1000.0 * statistics.median(seconds) for name, seconds in times.items()}


def measured_forms(contenders: Sequence[Contender], image: Tensor, study: Study) -> dict[str, Form]:
    """Each contender's fastest form, by name."""
    return {c.name: fastest_form(c, image, study.dims) for c in contenders}
