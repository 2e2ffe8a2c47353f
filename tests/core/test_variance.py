"""The windowed variance against a slow loop."""

import pytest
import torch

from kvlock.core.config import Signal
from kvlock.core.variance import Window, measure, windowed_variance
from support import reference
from support.draws import rand, randn


@pytest.mark.parametrize("count", [1, 2, 5])
def test_windowed_variance(count):
    predictions = tuple(randn(2, 3, 2, 4, 4, seed=i) for i in range(count))
    region = rand(2, 2, 4, 4, seed=9) > 0.5
    variance = windowed_variance(predictions, region)
    expected = [reference.variance([p[b] for p in predictions], region[b]) for b in range(2)]
    if count < 2:
        assert variance is None and expected == [None, None]
    else:
        torch.testing.assert_close(variance, torch.tensor(expected))


def test_variance_does_not_shrink_with_the_mask():
    predictions = tuple(randn(1, 16, 4, 16, 16, seed=i) for i in range(6))
    small, large = torch.zeros(2, 1, 4, 16, 16, dtype=torch.bool)
    small[..., :4, :4], large[..., :12, :12] = True, True
    ratio = windowed_variance(predictions, small) / windowed_variance(predictions, large)
    assert 0.8 < ratio < 1.25


def test_the_papers_signal_is_the_variance_itself():
    region = rand(2, 2, 4, 4, seed=9) > 0.5
    predictions = tuple(randn(2, 3, 2, 4, 4, seed=i) for i in range(3))
    measured = measure(Signal(), Window(predictions, region, [1.0, 0.9, 0.8, 0.7]), (1, 2, 2))
    assert torch.equal(measured.variance, windowed_variance(predictions, region))
    assert measured.nearby is None and measured.nearness is None
    for few in ((), predictions[:1]):
        assert measure(Signal(), Window(few, region, [1.0]), (1, 2, 2)) is None
