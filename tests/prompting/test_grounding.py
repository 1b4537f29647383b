from __future__ import annotations

import torch
import torch.nn.functional as F

from medsegdiff.prompting.grounding import (
    GroundingHead,
    block_outputs,
    unet_features,
    weighted,
    word_embeddings,
)
from medsegdiff.prompting.pipeline import TextToImage


def test_all_blocks_of_the_unet_are_seen(tiny: TextToImage) -> None:
    caption = tiny.caption(["liver", "kidney"])
    latents = torch.randn(2, 4, 16, 16)
    features, attention = unet_features(tiny, latents, torch.randn_like(latents), 100, caption)
    assert len(features) == 5 and attention.shape == (2, 2, 16, 16)
    head = GroundingHead([f.shape[1] for f in features], 16, width=8)
    assert head(features, attention, word_embeddings(caption)).shape == (2, 2, 32, 32)


def test_outputs_are_of_the_last_run_and_hooks_go(tiny: TextToImage) -> None:
    embedding = tiny.caption([]).embedding
    with block_outputs(tiny.unet) as outputs:
        for _ in range(2):
            tiny.predict(torch.randn(1, 4, 16, 16), 10, embedding)
        assert len(outputs) == 5
    tiny.predict(torch.randn(1, 4, 16, 16), 10, embedding)
    assert len(outputs) == 5


def test_a_word_without_masks_is_found_by_its_attention() -> None:
    """Taught two words whose masks lie where they are attended to, it finds a third."""
    torch.manual_seed(0)
    head = GroundingHead([4], 8, width=16)
    words = torch.randn(3, 8)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)

    def example(chosen: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        masks = F.interpolate((torch.rand(4, len(chosen), 3, 3) > 0.6).float(), size=(12, 12))
        attention = 0.01 + 0.05 * masks + 0.005 * torch.rand(4, len(chosen), 12, 12)
        return torch.randn(4, 4, 12, 12), attention, masks

    for _ in range(150):
        features, attention, masks = example([0, 1])
        finer = F.interpolate(masks, scale_factor=2)
        loss = F.binary_cross_entropy_with_logits(head([features], attention, words[:2]), finer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    features, attention, masks = example([2])
    found = head.eval()([features], attention, words[2:])[..., ::2, ::2] > 0
    assert (found == masks.bool()).float().mean() > 0.9


def test_the_scale_of_attention_says_nothing() -> None:
    attention = torch.rand(1, 2, 4, 4)
    torch.testing.assert_close(weighted(attention), weighted(attention * 7.0))
