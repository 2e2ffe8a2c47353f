"""Which tokens are computed, and which of the source's an edit sees."""

import torch

from kvlock.methods.dropping.tokens import computed_latents, computed_tokens, token_sets
from support.draws import rand


def test_the_context_is_near_the_mask_and_spread_over_the_rest():
    computed = torch.zeros(2, 10, 10, dtype=torch.bool)
    computed[:, 2:5, 2:5] = True
    everything, half, nothing = (token_sets(computed, share) for share in (1.0, 0.5, 0.0))
    assert len(everything.source) == 200 and len(everything.context) == 200 - 18
    assert torch.equal(nothing.source, nothing.edit) and len(nothing.context) == 0
    assert len(half.context) == 91 and len(half.source) == 91 + 18
    seen = torch.zeros(200, dtype=torch.bool)
    seen[half.source[half.context]] = True
    seen = seen.view(2, 10, 10)
    assert not (seen & computed).any()
    around = torch.zeros_like(computed)
    around[:, 1:6, 1:6] = True
    assert seen[around & ~computed].all()
    far = seen[:, 7:]
    assert 0.2 < far.float().mean() < 0.5
    assert abs(int(seen[0].sum()) - int(seen[1].sum())) <= 1  # no frame is preferred


def test_tokens_are_in_order_and_the_edits_are_the_computed_ones():
    computed = rand(2, 5, 6) > 0.6
    for share in (0.0, 0.3, 0.9, 1.0):
        sets = token_sets(computed, share)
        assert torch.equal(sets.edit, computed.flatten().nonzero()[:, 0])
        assert (sets.source.diff() > 0).all() and (sets.context.diff() > 0).all()
        context = set(sets.source[sets.context].tolist())
        assert context | set(sets.edit.tolist()) == set(sets.source.tolist())
        assert not context & set(sets.edit.tolist())
        assert len(context) == round(share * int((~computed).sum()))


def test_a_margin_lies_around_the_mask_in_its_own_frame():
    foreground = torch.zeros(1, 2, 12, 12, dtype=torch.bool)
    foreground[0, 0, 5, 5] = True
    for margin, side in ((0, 1), (1, 3), (2, 5), (9, 6)):
        tokens = computed_tokens(foreground, (1, 2, 2), margin)
        assert tokens.shape == (1, 2, 6, 6) and not tokens[0, 1].any()
        rows, columns = tokens[0, 0].any(dim=1).sum(), tokens[0, 0].any(dim=0).sum()
        assert (int(rows), int(columns)) == (side, side) and tokens.sum() == side**2


def test_the_latents_of_tokens_are_whole_patches():
    tokens = rand(2, 2, 3, 4) > 0.5
    latents = computed_latents(tokens, (2, 1, 3))
    assert latents.shape == (2, 4, 3, 12)
    for b, f, y, x in torch.ones_like(latents).nonzero().tolist():
        assert latents[b, f, y, x] == tokens[b, f // 2, y, x // 3]


def test_what_is_spread_lies_at_whole_numbers_that_no_device_rounds():
    """Of 90,000 tokens in a column each, ring by ring: floats of 24 bits would miss some."""
    computed = torch.zeros(30, 50, 60, dtype=torch.bool)
    computed[:, 20:30, 20:40] = True
    sets = token_sets(computed, 0.37)
    background = (~computed).flatten().nonzero()[:, 0].tolist()
    seen = set(sets.source[sets.context].tolist())
    rings = {
        token: max(0, 20 - y, y - 29, 20 - x, x - 39)
        for token in background
        for y, x in [(token // 60 % 50, token % 60)]
    }
    budget = round(0.37 * len(background))
    whole = max(r for r in range(60) if sum(n < r for n in rings.values()) <= budget // 2)
    near = [token for token in background if rings[token] < whole]
    rest = [token for token in background if rings[token] >= whole]
    count = budget - len(near)
    assert seen == {*near, *(rest[i * len(rest) // count] for i in range(count))}
