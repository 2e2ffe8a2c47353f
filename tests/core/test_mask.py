import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvlock.core.mask import latent_foreground, token_foreground
from support import reference

STRIDES = [(4, 8, 8), (8, 4, 4), (6, 8, 8), (1, 2, 2), (4, 16, 16)]
PATCHES = [(1, 2, 2), (2, 2, 2), (1, 1, 1)]


@pytest.mark.parametrize("stride", STRIDES)
def test_latent_mask_is_the_causal_maximum(stride):
    generator = torch.Generator().manual_seed(sum(stride))
    mask = (
        torch.rand(2, 2 * stride[0] + 1, 2 * stride[1], 3 * stride[2], generator=generator) > 0.995
    )
    expected = torch.stack([reference.latent_mask(m, stride) for m in mask])
    assert torch.equal(latent_foreground(mask, stride), expected)


@pytest.mark.parametrize("patch", PATCHES)
def test_token_mask_is_the_maximum_in_token_order(patch):
    latent = torch.rand(2, 4, 6, 8, generator=torch.Generator().manual_seed(1)) > 0.9
    expected = torch.stack([reference.token_mask(m, patch) for m in latent])
    assert torch.equal(token_foreground(latent, patch), expected)


@settings(max_examples=60, deadline=None)
@given(frame=st.integers(0, 16), y=st.integers(0, 31), x=st.integers(0, 47))
def test_one_pixel_frees_exactly_its_token(frame, y, x):
    mask = torch.zeros(1, 17, 32, 48, dtype=torch.bool)
    mask[0, frame, y, x] = True
    tokens = token_foreground(latent_foreground(mask, (4, 8, 8)), (1, 2, 2)).view(5, 2, 3)
    assert tokens.sum() == 1
    assert tokens[(frame + 3) // 4, y // 16, x // 16]


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="4n\\+1 frames"):
        latent_foreground(torch.zeros(1, 8, 16, 16, dtype=torch.bool), (4, 8, 8))
    with pytest.raises(ValueError, match="patch size"):
        token_foreground(torch.zeros(1, 3, 5, 6, dtype=torch.bool), (1, 2, 2))
