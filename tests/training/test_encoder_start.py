"""What a denoiser of images hands on to an encoder."""

import pytest
import torch

from medsegdiff.networks.encoder import ImageEncoder
from medsegdiff.networks.image_denoiser import ImageDenoiser
from medsegdiff.training.encoder_start import encoder_weights, folded

CHANNELS = (8, 16, 16)
SIZES = [(64, 64), (32, 32, 32)]
DEPTHS = [(1, 2, 2), (2, 2, 2), (1, 1, 1)]


def trained(dims: int, depths: tuple[int, ...] = (2, 2, 2)) -> ImageDenoiser:
    """A denoiser whose weights, zero at first, are not."""
    torch.manual_seed(0)
    network = ImageDenoiser(dims, 1, 1, CHANNELS, depths)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


@pytest.mark.parametrize("depths", DEPTHS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_an_encoder_sees_what_the_denoiser_sees_at_that_time(
    size: tuple[int, ...], depths: tuple[int, ...]
) -> None:
    denoiser = trained(len(size), depths)
    x = torch.randn(1, 1, *size)
    x = (x - x.mean()) / x.std()
    inside = (..., *[slice(n // 4, -n // 4) for n in size])  # borders see the padding
    with torch.no_grad():
        for time in (0.1, 0.6):
            wanted = denoiser(x, torch.tensor([time])).output[inside]
            found = []
            for state in (folded(denoiser, time), denoiser.unet.state_dict()):
                encoder = ImageEncoder(len(size), 1, 1, CHANNELS, depths)
                encoder.load_state_dict(state)
                error = encoder(x).anchor[inside] - wanted
                found.append(float(error.square().mean() / wanted.var()))
            assert found[0] < 0.01 and found[0] < 0.1 * found[1]


def test_all_but_the_head_is_handed_on_and_the_denoiser_left_as_it_is() -> None:
    denoiser = trained(2)
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    encoder = ImageEncoder(2, 1, 3, CHANNELS, depths=(2, 2, 2))
    missing, unexpected = encoder.load_state_dict(encoder_weights(denoiser, encoder), strict=False)
    assert sorted(missing) == ["head.bias", "head.weight"] and not unexpected
    assert all(torch.equal(before[k], v) for k, v in denoiser.state_dict().items())


@pytest.mark.parametrize(
    "encoder",
    [
        ImageEncoder(2, 1, 3, (8, 16, 32), depths=(2, 2, 2)),
        ImageEncoder(2, 1, 3, CHANNELS),
        ImageEncoder(2, 1, 3, (8, 16, 16, 16), depths=(2, 2, 2, 2)),
    ],
    ids=["wider", "shallower", "deeper"],
)
def test_encoder_of_other_sizes_is_refused(encoder: ImageEncoder) -> None:
    with pytest.raises(ValueError, match="channels and depths"):
        encoder_weights(trained(2), encoder)
