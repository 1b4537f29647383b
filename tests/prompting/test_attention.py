from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medsegdiff.core.errors import UsageError
from medsegdiff.prompting.attention import AttentionRecord, probabilities, recorded
from medsegdiff.prompting.maps import competing, propagated, resize, word_maps
from medsegdiff.prompting.pipeline import TextToImage


def test_recording_changes_nothing_and_ends(tiny: TextToImage) -> None:
    x = torch.randn(2, 4, 16, 16)
    embedding = tiny.caption(["liver", "kidney"]).embedding
    before = tiny.unet.attn_processors
    plain = tiny.predict(x, 100, embedding)
    with recorded(tiny.unet, x) as record:
        told = tiny.predict(x, 100, embedding)
    torch.testing.assert_close(plain, told)
    assert tiny.unet.attn_processors == before
    assert set(record.cross) == {(16, 16), (8, 8)}


def test_attention_is_shared_out_over_all_tokens(tiny: TextToImage) -> None:
    x = torch.randn(2, 4, 16, 16)
    with recorded(tiny.unet, x) as record:
        for t in (100, 300):
            tiny.predict(x, t, tiny.caption(["liver"]).embedding)
    for mean in record.mean_cross().values():
        torch.testing.assert_close(mean.sum(dim=1), torch.ones_like(mean[:, 0]))
    grid, own = record.mean_own() or ((0, 0), torch.empty(0))
    assert grid == (16, 16)
    torch.testing.assert_close(own.sum(dim=-1), torch.ones(2, 256))


def test_probabilities_are_those_of_diffusers(tiny: TextToImage) -> None:
    attn = tiny.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    queries, keys = torch.randn(2, 9, 16), torch.randn(2, 5, 16)
    with torch.no_grad():
        q = attn.head_to_batch_dim(attn.to_q(queries))
        k = attn.head_to_batch_dim(attn.to_k(keys))
        expected = attn.get_attention_scores(q, k).unflatten(0, (2, attn.heads)).mean(dim=1)
        torch.testing.assert_close(probabilities(attn, queries, keys), expected)


def test_grids_of_odd_sizes_round_up() -> None:
    record = AttentionRecord((5, 7))
    for places in (35, 12, 4):
        record.add(torch.full((1, places, 3), 1 / 3), is_cross=True)
    assert set(record.cross) == {(5, 7), (3, 4), (2, 2)}
    with pytest.raises(ValueError, match="no halving"):
        record.add(torch.ones(1, 10, 3), is_cross=True)


def recorded_by_hand(cross: Tensor, own: Tensor | None = None) -> AttentionRecord:
    record = AttentionRecord((2, 2))
    record.add(cross, is_cross=True)
    if own is not None:
        record.add(own, is_cross=False)
    return record


def test_a_words_map_is_the_mean_over_its_tokens() -> None:
    cross = torch.arange(12.0).view(1, 4, 3)
    maps = word_maps(recorded_by_hand(cross), [(0,), (1, 2)])
    torch.testing.assert_close(maps[0, 0].flatten(), cross[0, :, 0])
    torch.testing.assert_close(maps[0, 1].flatten(), cross[0, :, 1:].mean(dim=1))
    with pytest.raises(ValueError, match="no cross-attention"):
        word_maps(AttentionRecord((2, 2)), [(0,)])


def test_maps_spread_along_self_attention() -> None:
    maps = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    cycle = torch.eye(4).roll(1, dims=0)[None]  # each place attends to the one before
    record = recorded_by_hand(torch.ones(1, 4, 1), cycle)
    assert propagated(maps, record, 1).flatten().tolist() == [0.0, 1.0, 0.0, 0.0]
    assert propagated(maps, record, 2).flatten().tolist() == [0.0, 0.0, 1.0, 0.0]
    assert propagated(maps, record, 0) is maps


def test_words_compete_with_each_other_and_with_none() -> None:
    maps = torch.rand(2, 3, 8, 8)
    found = competing(maps, 0.5, 20.0)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2, 8, 8))
    peak = int(maps[0, 1].argmax())
    alone = torch.zeros(1, 2, 8, 8)
    alone.view(1, 2, -1)[0, 1, peak] = 1.0
    best = competing(alone, 0.5, 50.0).argmax(dim=1).flatten()
    assert best[peak] == 2 and (best == 0).sum() == 63


def test_resizing_keeps_the_mean() -> None:
    maps = torch.rand(1, 2, 16, 16)
    torch.testing.assert_close(resize(maps, (8, 8)).mean(), maps.mean(), atol=0.01, rtol=0)


def test_layers_are_chosen_by_their_names(tiny: TextToImage) -> None:
    latents = torch.randn(1, 4, 16, 16)
    embedding = tiny.caption(["liver"]).embedding
    with recorded(tiny.unet, latents, "down_blocks.0") as record:
        tiny.predict(latents, 10, embedding)
    assert list(record.cross) == [(16, 16)] and record.own
    for several in ("down_blocks.0,mid_block", "mid_block,down_blocks.0"):
        with recorded(tiny.unet, latents, several) as record:
            tiny.predict(latents, 10, embedding)
        assert set(record.cross) == {(16, 16), (8, 8)}
    rule = "no name of a cross-attention layer"
    for layers in ("x1", "attn1"):
        with pytest.raises(UsageError, match=rule), recorded(tiny.unet, latents, layers):
            pass
