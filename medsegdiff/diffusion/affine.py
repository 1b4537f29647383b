"""States x_t = a x_0 + s eps: what the Gaussian process and the rectified flow share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medsegdiff.core.types import Target
from medsegdiff.diffusion.grid import Level, TimeGrid, grid_at, time_grid
from medsegdiff.diffusion.prediction import mask_from_logits, x_0_from_eps


class AffineProcess(nn.Module, ABC):
    """A ``Process`` given by its table of levels and its velocity; it holds no weights.

    Args:
        a: Signal level (T,) float64 of each time step, falling.
        s: Noise level (T,) float64 of each time step.
    """

    targets: tuple[Target, ...] = ("x_0", "eps", "v")

    def __init__(self, a: Tensor, s: Tensor) -> None:
        super().__init__()
        # Not buffers: `.half()` or `.to(dtype)` on the model must not degrade the levels.
        self.a, self.s, self.n_timesteps = a, s, len(a)
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}  # copied once a device

    @abstractmethod
    def velocity(self, x_0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
        """The target ``v`` (B, K, *spatial) of this process."""

    @abstractmethod
    def x_0_from_velocity(self, x_t: Tensor, v: Tensor, a: Tensor, s: Tensor) -> Tensor:
        """The clean mask (B, K, *spatial) from ``v``; defined at every level."""

    def coefficients(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(a, s) at ``t``, each (B, 1, ..., 1) in the dtype and place of ``like``."""
        shape = (-1, *[1] * (like.ndim - 1))
        if t.device not in self._tables:
            self._tables[t.device] = self.a.to(t.device), self.s.to(t.device)
        a, s = (table[t].view(shape).to(like) for table in self._tables[t.device])
        return a, s

    def add_noise(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Sample of q(x_t | x_0) for noise ``eps``; all (B, K, *spatial)."""
        a, s = self.coefficients(t, x_0)
        return a * x_0 + s * eps

    def start(self, eps: Tensor) -> Tensor:
        """The state x_T (B, K, *spatial), which is the noise alone."""
        return eps

    def network_input(self, x_t: Tensor, t: Tensor, anchor: Tensor) -> Tensor:
        """The network's input (B, K, *spatial), which is x_t itself."""
        return x_t

    def target(self, x_0: Tensor, eps: Tensor, t: Tensor, target: Target) -> Tensor:
        """The output (B, K, *spatial) that a network is trained on; x_0 is a mask in [-1, 1]."""
        if target == "x_0":
            return x_0
        if target == "eps":
            return eps
        return self.velocity(x_0, eps, *self.coefficients(t, x_0))

    def x_0_from_output(self, output: Tensor, x_t: Tensor, t: Tensor, target: Target) -> Tensor:
        """Clean mask in [-1, 1] from a network's output, whatever its target.

        Args:
            output: Output (B, K, *spatial) of the network; for ``x_0`` logits over the K classes.
            x_t: State that the network saw, same shape.
            t: Integer time steps (B,) or (1,) of the state.
            target: Meaning of the output.

        Returns:
            Mask (B, K, *spatial) in [-1, 1].
        """
        if target == "x_0":
            return mask_from_logits(output)
        convert = x_0_from_eps if target == "eps" else self.x_0_from_velocity
        return convert(x_t, output, *self.coefficients(t, x_t)).clamp(-1.0, 1.0)

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio (B,) a^2 / s^2 at ``t``."""
        return (self.a / self.s).square().to(t.device)[t].float()

    def gain(self, t: Tensor, target: Target) -> Tensor:
        """Squared error (B,) of the target for a squared error 1 of x_0, at a given x_t."""
        one = torch.ones(t.shape, device=t.device)
        a, s = self.coefficients(t, one)
        # With x_t held fixed, a unit more of x_0 is a / s less of eps.
        return self.target(one, -a / s, t, target).square()

    def grid(self, steps: int, start: float = 1.0) -> TimeGrid:
        """A grid of ``steps`` time steps for a sampler (``grid.time_grid``).

        Raises:
            ValueError: if ``steps`` or ``start`` is out of its range.
        """
        return time_grid(self.a, self.s, steps, start)

    def grid_at(self, timesteps: Sequence[int]) -> TimeGrid:
        """A grid of chosen time steps, falling, as of a model with a spacing of its own."""
        return grid_at(self.a, self.s, timesteps)


def posterior_coefficients(now: Level, after: Level) -> tuple[float, float, float]:
    """Factor of x_0, factor of x_t, and variance of q(x_s | x_t, x_0) between any two times s < t.

    DDPM's eq. 7 for general levels (Kingma et al. 2021, eq. 25): x_t given x_s is
    N(alpha x_s, sigma^2) with alpha = a_t / a_s and sigma^2 = s_t^2 - alpha^2 s_s^2, so that any
    grid keeps the process's marginals.

    Example:
        >>> posterior_coefficients(Level(0.6, 0.8), Level(1.0, 0.0))
        (1.0, 0.0, 0.0)
    """
    alpha = now.a / after.a
    variance_of_step = now.s**2 - (alpha * after.s) ** 2
    rest = now.s**2
    of_x_t = alpha * after.s**2 / rest
    return after.a * variance_of_step / rest, of_x_t, variance_of_step * after.s**2 / rest
