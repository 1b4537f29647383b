"""The categorical process: a voxel's class jumps to a random one (D3PM, sec. 3; K = 2: BerDiff).

Hoogeboom et al. 2021 and Austin et al. 2021 (D3PM): with probability ``alphas_cumprod`` a voxel
still has its class, else one drawn from all K alike. A state is one-hot, scaled to [-1, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medsegdiff.core.types import Target
from medsegdiff.diffusion.grid import Level, TimeGrid, time_grid
from medsegdiff.diffusion.prediction import mask_from_logits, mask_to_probability
from medsegdiff.diffusion.schedule import ScheduleName, make_schedule


class CategoricalProcess(nn.Module):
    """q(x_t | x_0) = Cat(a x_0 + s / K), a = alphas_cumprod and s = 1 - a (D3PM, eq. 3).

    It holds no weights.

    Args:
        schedule: Name of the noise schedule.
        n_timesteps: Number T of time steps 0 ... T - 1; T - 1 is uniform with ``zero_snr``.
        input_scale: Factor b of the schedule (``schedule.scale_input``).
        zero_snr: Whether nothing of x_0 is left at the last step.

    Raises:
        ValueError: for an unknown schedule, fewer than two time steps or a non-positive scale.
    """

    targets: tuple[Target, ...] = ("x_0",)

    def __init__(
        self,
        schedule: ScheduleName = "cosine",
        n_timesteps: int = 1000,
        input_scale: float = 1.0,
        zero_snr: bool = True,
    ) -> None:
        super().__init__()
        self.n_timesteps = n_timesteps
        self.alphas_cumprod = make_schedule(
            schedule, n_timesteps, input_scale=input_scale, zero_snr=zero_snr
        )

    def add_noise(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Sample of q(x_t | x_0), one-hot in [-1, 1]; ``x_0`` may be a soft mask."""
        a = self.alphas_cumprod.to(t.device)[t].view(-1, *[1] * (x_0.ndim - 1)).to(x_0)
        return sample_one_hot(jump(mask_to_probability(x_0), a), eps)

    def start(self, eps: Tensor) -> Tensor:
        """The state x_T (B, K, *spatial): each voxel has a random class, one-hot in [-1, 1]."""
        return sample_one_hot(torch.ones_like(eps), eps)

    def network_input(self, x_t: Tensor, t: Tensor, anchor: Tensor) -> Tensor:
        """The network's input (B, K, *spatial), which is x_t itself."""
        return x_t

    def target(self, x_0: Tensor, eps: Tensor, t: Tensor, target: Target) -> Tensor:
        """The mask x_0 (B, K, *spatial) in [-1, 1], the only target."""
        return x_0

    def x_0_from_output(self, output: Tensor, x_t: Tensor, t: Tensor, target: Target) -> Tensor:
        """Clean mask (B, K, *spatial) in [-1, 1] from its logits."""
        return mask_from_logits(output)

    def snr(self, t: Tensor) -> Tensor:
        """Ratio (B,) alphas_cumprod / (1 - alphas_cumprod) at ``t``, as in the Gaussian process."""
        return (self.alphas_cumprod / (1.0 - self.alphas_cumprod)).to(t.device)[t].float()

    def gain(self, t: Tensor, target: Target) -> Tensor:
        """Ones (B,), since the target is x_0."""
        return torch.ones(t.shape, device=t.device)

    def grid(self, steps: int, start: float = 1.0) -> TimeGrid:
        """A grid of ``steps`` time steps for a sampler (``grid.time_grid``).

        Raises:
            ValueError: if ``steps`` or ``start`` is out of its range.
        """
        a = self.alphas_cumprod
        return time_grid(a, 1.0 - a, steps, start, "discrete")


def jump(probability: Tensor, alpha: Tensor | float) -> Tensor:
    """Class probabilities (B, K, *spatial) after a step that keeps the class with ``alpha``."""
    return alpha * probability + (1.0 - alpha) / probability.shape[1]


def sample_one_hot(weight: Tensor, eps: Tensor) -> Tensor:
    """Classes drawn with ``weight`` (B, K, *spatial) by the Gumbel-max trick, one-hot in [-1, 1].

    The Gumbel noise is -log(-log Phi(eps)) of the standard normal ``eps``, same shape; so one
    noise serves every process.

    Example:
        >>> import torch
        >>> weight, eps = torch.ones(1, 3, 1), torch.tensor([[[0.1], [2.0], [-1.0]]])
        >>> sample_one_hot(weight, eps).flatten().tolist()
        [-1.0, 1.0, -1.0]
    """
    uniform_log = torch.special.log_ndtr(eps if eps.dtype == torch.float64 else eps.float())
    chosen = (weight.log() - (-uniform_log).log()).argmax(dim=1, keepdim=True)
    return torch.full_like(eps, -1.0).scatter_(1, chosen, 1.0)


def posterior_probability(x_t: Tensor, x_0: Tensor, now: Level, after: Level) -> Tensor:
    """q(x_s | x_t): class probabilities (B, K, *spatial) at the next level (D3PM, eq. 4).

    It is the sum over x_0 of p(x_0) q(x_t | x_s) q(x_s | x_0) / q(x_t | x_0), and
    adds up to 1 by itself.

    Args:
        x_t: State (B, K, *spatial) at level ``now``, one-hot in [-1, 1].
        x_0: Clean mask (B, K, *spatial) in [-1, 1]; rescaled, it is the probability p(x_0).
        now: Level at t.
        after: Level at s < t.
    """
    here = (x_t + 1.0) / 2.0
    weighted = mask_to_probability(x_0) / jump(here, now.a)  # q(x_t | x_0) is symmetric
    arrive = after.a * weighted + after.s / x_t.shape[1] * weighted.sum(dim=1, keepdim=True)
    return jump(here, now.a / after.a) * arrive
