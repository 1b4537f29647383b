"""The posterior of general levels against Bayes' rule."""

import pytest

from medsegdiff.diffusion.affine import AffineProcess, posterior_coefficients
from medsegdiff.diffusion.flow import RectifiedFlow
from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.diffusion.grid import Level

PROCESSES = {
    "gaussian": GaussianProcess("linear", 1000, zero_snr=False),
    "flow": RectifiedFlow(1000),
    "narrow-flow": RectifiedFlow(1000, base_scale=0.3),
}


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize(("s", "t"), [(0, 1), (100, 500), (3, 998)])
def test_posterior_is_bayes_rule(process: AffineProcess, s: int, t: int) -> None:
    """q(x_s | x_t, x_0) from the product of two Gaussians in x_s, computed the long way."""
    now = Level(float(process.a[t]), float(process.s[t]))
    after = Level(float(process.a[s]), float(process.s[s]))
    alpha = now.a / after.a
    x_0, x_t = 0.7, -0.4
    prior_mean, prior_var = after.a * x_0, after.s**2
    likelihood_mean = x_t / alpha
    likelihood_var = (now.s**2 - alpha**2 * after.s**2) / alpha**2
    precision = 1 / prior_var + 1 / likelihood_var
    mean = (prior_mean / prior_var + likelihood_mean / likelihood_var) / precision
    of_x_0, of_x_t, variance = posterior_coefficients(now, after)
    assert of_x_0 * x_0 + of_x_t * x_t == pytest.approx(mean)
    assert variance == pytest.approx(1 / precision)


def test_posterior_is_ddpms_equation_7() -> None:
    gamma_t, gamma_s = 0.3, 0.45
    alpha = gamma_t / gamma_s
    expected = (
        gamma_s**0.5 * (1 - alpha) / (1 - gamma_t),
        alpha**0.5 * (1 - gamma_s) / (1 - gamma_t),
        (1 - alpha) * (1 - gamma_s) / (1 - gamma_t),
    )
    now, after = Level(gamma_t**0.5, (1 - gamma_t) ** 0.5), Level(gamma_s**0.5, 0.55**0.5)
    assert posterior_coefficients(now, after) == pytest.approx(expected)
