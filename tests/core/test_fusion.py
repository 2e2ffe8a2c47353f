"""The blend of keys and values against a slow loop."""

import pytest
import torch

from kvlock.core.fusion import fuse_, fusion_weight
from support import reference
from support.draws import rand, randn


@pytest.mark.parametrize("tail", [(6,), (2, 3)], ids=["inner", "heads"])
def test_fusion(tail):
    new, source = randn(2, 10, *tail), randn(2, 10, *tail, seed=1)
    background = rand(2, 10, seed=2) > 0.4
    alpha = torch.tensor([0.3, 0.8])
    expected = torch.stack(
        [
            reference.fuse(n.flatten(1), s.flatten(1), ~b, float(a)).view_as(n)
            for n, s, b, a in zip(new, source, background, alpha)
        ]
    )
    fused = fuse_(new.clone(), source, fusion_weight(alpha, background))
    torch.testing.assert_close(fused, expected)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_fusion_is_exact_at_both_ends(alpha):
    new, source = randn(1, 8, 4), randn(1, 8, 4, seed=1)
    background = torch.tensor([[True, False] * 4])
    fused = fuse_(new.clone(), source, fusion_weight(torch.tensor([alpha]), background))
    assert torch.equal(fused, torch.where(background[..., None], source, new) if alpha else new)


def test_fusion_writes_in_the_tensor_that_it_gets():
    new, source = randn(1, 8, 4), randn(1, 8, 4, seed=1)
    weight = fusion_weight(torch.tensor([0.5]), torch.ones(1, 8, dtype=torch.bool))
    before = source.clone()
    assert fuse_(new, source, weight) is new and torch.equal(source, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_keys_keep_their_own_precision(dtype):
    new, source = randn(1, 8, 4).to(dtype), randn(1, 8, 4, seed=1).to(dtype)
    weight = fusion_weight(torch.tensor([0.25]), torch.ones(1, 8, dtype=torch.bool))
    expected = 0.25 * source.float() + 0.75 * new.float()
    fused = fuse_(new.clone(), source, weight)
    assert fused.dtype == dtype
    torch.testing.assert_close(fused.float(), expected, atol=0.02, rtol=0.01)


def test_the_foreground_takes_its_share_too():
    new, source = randn(1, 8, 4), randn(1, 8, 4, seed=1)
    background = torch.tensor([[True, False] * 4])
    weight = fusion_weight(torch.tensor([1.0]), background, 0.1)
    fused = fuse_(new.clone(), source, weight)
    inside = torch.stack([0.9 * n + 0.1 * s for n, s in zip(new[0], source[0])])
    torch.testing.assert_close(fused, torch.where(background[..., None], source, inside))


def test_a_weight_for_every_token():
    ratio = torch.tensor([[0.2, 0.5, 0.25, 0.0]])
    background = torch.tensor([[True, True, False, True]])
    weight = fusion_weight(ratio, background, 0.1)
    torch.testing.assert_close(weight[..., 0], torch.tensor([[0.2, 0.5, 0.1, 0.0]]))
