"""How many training steps of how many patches a plan has in the hours that are given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from medsegdiff.planning.decisions import WIDTHS, Layout, Plan

LEAST_STEPS = 10_000
"""Training steps below which a step takes fewer patches, so that there are more steps. Slices of
hearts had a Dice of 0.823 after 4,215 steps of 4 patches, 0.819 after 1,215 of 16, in the same 480
CPU seconds (the encoder alone, fold 1, one seed)."""

LEAST_STEPS_OF_WIDE = 3000
"""Training steps below which a network of two dimensions is planned with half the features. Slices
of hearts, 4 a step, had a Dice of 0.843 after 11,639 steps of the encoder with 8 features at its
finest level, 0.848 after 4,868 steps with 16 in the same 1,200 CPU seconds; after 480 s, 16 a step,
0.819 after 1,215 steps with 8, 0.815 after 705 with 12 (fold 1, one seed). Without the level of the
image's own size, hearts and vessels were behind MONAI's U-Net."""

LEAST_BATCH = {2: 4, 3: 2}
"""Patches of a step at the least."""

LEAST_PIXELS = 32_768
"""Pixels of a step of two dimensions at the least: steps of fewer are hardly any faster."""

STEPS_PER_EPOCH = 250
"""Training steps of an epoch (nnU-Net's number), unless there are fewer than ten such epochs."""


LEAST_ANCHOR_STEPS = 1200
"""Training steps of the encoder alone below which it has more of the time than the plan's share, up
to ``MOST_ANCHOR_TIME``. Vessels with two readers had a Dice of 0.784 and a GED^2 of 0.434 after
1180 steps of it and 148 of the denoiser, 0.741 and 0.485 after 736 and 364; nodules with four
readers 0.440 and 0.534 after 2056 and 257, 0.476 and 0.292 after 1285 and 635 (fold 1, one seed
each)."""

MOST_ANCHOR_TIME = 0.8
"""Share of the time that the encoder alone has at most."""

VALIDATING = 0.05
"""Share of the time that validations take at most."""

FASTER = 0.95
"""Ratio of times below which another order of features in memory is taken."""


@dataclass(frozen=True)
class Times:
    """Times of a plan on a device, in seconds.

    Attributes:
        encoder: Time of a training step of the encoder alone.
        denoiser: Time of a training step of the denoiser.
        patches: Time to make the patches of a step.
        validation: Time of a validation.
        layout: Order of features in memory that they are of.
        other: Time of a step of the encoder in the other order; None: not timed.
    """

    encoder: float
    denoiser: float
    patches: float = 0.0
    validation: float = 0.0
    layout: Layout = "channels_last"
    other: float | None = None


def faster(channels_last: float, contiguous: float | None) -> Layout:
    """The order of features in memory in which steps are faster.

    >>> faster(1.0, 0.8), faster(1.0, 0.99), faster(1.0, None)
    ('contiguous', 'channels_last', 'channels_last')
    """
    much = contiguous is not None and contiguous < FASTER * channels_last
    return "contiguous" if much else "channels_last"


def timed(plan: Plan, times: Times, hours: float) -> Plan:
    """The plan with as many epochs as fit into the hours.

    Args:
        plan: Plan whose training was timed.
        times: Its times.
        hours: Hours of training.
    """
    budget = 0.95 * 3600.0 * hours  # the rest is for reading the data and for checkpoints
    affordable = int(VALIDATING * budget / max(times.validation, 1e-6))
    validations = min(10, max(1, affordable))
    budget = max(budget - validations * times.validation, 0.5 * budget)
    seconds = (times.encoder + times.patches, times.denoiser + times.patches)
    needed = min(LEAST_ANCHOR_STEPS * seconds[0] / budget, MOST_ANCHOR_TIME)
    share = max(plan.anchor_time, needed)
    first = int(share * budget / seconds[0])
    second = max(int((1.0 - share) * budget / seconds[1]), 1)
    epochs = max(1, min(10, first + second), round((first + second) / STEPS_PER_EPOCH))
    steps_per_epoch = max(1, round((first + second) / epochs))
    total = epochs * steps_per_epoch
    anchor = min(first, round(total * first / (first + second)), total - 1)  # one for the denoiser
    reasons = dict(plan.reasons or {})
    if share > plan.anchor_time:
        reasons["anchor_steps"] = (
            f"{100 * share:.0f} % of the time, more than {100 * plan.anchor_time:.0f} %: the "
            f"encoder needs some {LEAST_ANCHOR_STEPS} steps, since members can be no better than "
            "the features that they are drawn from"
        )
    else:
        reasons.pop("anchor_steps", None)
    reasons["epochs"] = (
        f"of {steps_per_epoch} steps: one of the encoder takes {seconds[0]:.2f} s here and one of "
        f"the denoiser {seconds[1]:.2f} s, {times.patches:.2f} s of it for the patches: {total} "
        f"steps in {hours:g} hours, {100 * VALIDATING:.0f} % kept for validation"
    )
    if times.other is not None:
        reasons["layout"] = (
            f"a step of the encoder takes {times.encoder:.2f} s here, {times.other:.2f} s with "
            "features in memory in the other order"
        )
    return replace(
        plan,
        layout=times.layout,
        seconds=seconds,
        anchor_steps=anchor,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        val_interval=-(-epochs // validations),
        reasons=reasons,
    )


def with_fewer_features(plan: Plan) -> Plan:
    """The plan itself, or with a narrower encoder where it has too few steps; untimed then.

    Args:
        plan: Plan whose training was timed.
    """
    steps = plan.epochs * plan.steps_per_epoch
    narrow = plan.narrower()
    if plan.dims == 3 or steps >= LEAST_STEPS_OF_WIDE or plan.channels[0] < WIDTHS[0]:
        return plan
    reasons = dict(plan.reasons or {})
    reasons["channels"] = (
        f"{narrow.channels[0]} features at the image's size: with {plan.channels[0]} there were "
        f"{steps} steps in the time, and a network of {plan.channels[0]} pays from some "
        f"{LEAST_STEPS_OF_WIDE} on"
    )
    return replace(narrow, reasons=reasons)


def with_smaller_batch(plan: Plan) -> Plan:
    """The plan itself, or with fewer patches a step where it has too few steps; untimed then.

    Args:
        plan: Plan whose training was timed.
    """
    steps = plan.epochs * plan.steps_per_epoch
    least = LEAST_BATCH[plan.dims]
    if plan.dims == 2:
        least = max(least, LEAST_PIXELS // prod(plan.patch))
    batch = max(min(least, plan.batch), plan.batch * steps // LEAST_STEPS)
    if batch >= plan.batch:
        return plan
    reasons = dict(plan.reasons or {})
    reasons["batch"] = (
        f"{batch} patches, not {plan.batch}: with these there were {steps} steps in the time, and "
        f"training needs some {LEAST_STEPS} more than it needs large ones"
    )
    return replace(plan, batch=batch, reasons=reasons)
