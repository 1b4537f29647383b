"""Start a segmenter's encoder with the weights of a diffusion model of images."""

from __future__ import annotations

from medsegdiff.bundle.bundle import load_bundle
from medsegdiff.core.errors import InputError, surfacing_input_errors
from medsegdiff.models.diffusion_segmenter import DiffusionSegmenter
from medsegdiff.training.encoder_start import encoder_weights


def start_from_pretrained(
    network: DiffusionSegmenter, pretrained: str | None
) -> DiffusionSegmenter:
    """The same network, its encoder's weights taken from a bundle trained on images alone.

    Args:
        network: Untrained network.
        pretrained: Name or folder of a bundle with ``configs/label_efficient``; None: the network
            is not changed.

    Raises:
        InputError: the bundle has no weights, or none that fit the encoder.
        UsageError: the bundle is unknown.
    """
    if pretrained is None:
        return network
    bundle = load_bundle(pretrained)
    parser = bundle.parser("label_efficient", {"device": "$torch.device('cpu')"})
    with surfacing_input_errors():
        images = parser.get_parsed_content("network")
    try:
        weights = encoder_weights(images.denoiser, network.encoder)
    except ValueError as error:
        rule = f"cannot start the encoder ({str(error).rstrip('.')})"
        remedy = "Train it with the encoder's channels and depths, or leave out pretrained"
        raise InputError(bundle.root, rule, remedy) from error
    network.encoder.load_state_dict(weights, strict=False)
    return network
