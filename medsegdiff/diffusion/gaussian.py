"""The Gaussian process, which keeps the variance of x_t (DDPM, sec. 2)."""

from __future__ import annotations

from torch import Tensor

from medsegdiff.diffusion.affine import AffineProcess
from medsegdiff.diffusion.prediction import v_from_x_0_and_eps, x_0_from_v
from medsegdiff.diffusion.schedule import ScheduleName, make_schedule


class GaussianProcess(AffineProcess):
    """Process with a^2 = alphas_cumprod and s^2 = 1 - alphas_cumprod of a schedule (DDPM, eq. 4).

    Args:
        schedule: Name of the noise schedule.
        n_timesteps: Number T of time steps 0 ... T - 1; T - 1 is pure noise with ``zero_snr``.
        input_scale: Factor b of the schedule (``schedule.scale_input``).
        zero_snr: Whether nothing of x_0 is left at the last step.
        alphas_cumprod: Levels (T,) of another schedule, falling, such as a trained model's; they
            take the place of all of the above.

    Raises:
        ValueError: for an unknown schedule, fewer than two time steps or a non-positive scale.
    """

    def __init__(
        self,
        schedule: ScheduleName = "cosine",
        n_timesteps: int = 1000,
        input_scale: float = 1.0,
        zero_snr: bool = True,
        alphas_cumprod: Tensor | None = None,
    ) -> None:
        if alphas_cumprod is None:
            alphas_cumprod = make_schedule(
                schedule, n_timesteps, input_scale=input_scale, zero_snr=zero_snr
            )
        alphas_cumprod = alphas_cumprod.double()
        super().__init__(alphas_cumprod.sqrt(), (1.0 - alphas_cumprod).sqrt())
        self.alphas_cumprod = alphas_cumprod

    def velocity(self, x_0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
        """Velocity v = a eps - s x_0 (Salimans & Ho 2022, app. D)."""
        return v_from_x_0_and_eps(x_0, eps, a, s)

    def x_0_from_velocity(self, x_t: Tensor, v: Tensor, a: Tensor, s: Tensor) -> Tensor:
        """Clean mask x_0 = a x_t - s v, the inverse of ``velocity``."""
        return x_0_from_v(x_t, v, a, s)
