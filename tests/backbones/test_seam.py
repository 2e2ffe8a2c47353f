"""What the seam does to keys and values, on the real classes of six families."""

import pytest
import torch

from kvlock.backbones.seam import attached
from kvlock.contract.tap import Tap
from kvlock.core.tap import HandOver
from support import reference
from support.draws import rand
from support.families import wan


def _background(family, share=0.6):
    return rand(1, family.tokens, seed=7) < share


def _trunk(family):
    return [site for site in family.sites if not site.control]


def _hand_over(background, alpha):
    return HandOver(background, 0.0, None).weighted(torch.tensor([alpha]), sources=1)


@torch.no_grad()
def _handed_over(family, source, edit, background, alpha):
    with attached(_hand_over(background, alpha), _trunk(family)):
        out = family.forward(torch.cat([source, edit]))
    return out[len(source) :]


@torch.no_grad()
def test_ratio_zero_is_the_plain_model_to_the_bit(family):
    source, edit = family.draw(1), family.draw(1, seed=1)
    plain = family.forward(torch.cat([source, edit]))[1:]
    assert torch.equal(_handed_over(family, source, edit, _background(family), 0.0), plain)


@torch.no_grad()
def test_a_tap_that_does_nothing_changes_nothing(family):
    latents = family.draw(2)
    plain = family.forward(latents)
    with attached(Tap(), family.sites):
        assert torch.equal(family.forward(latents), plain)


@torch.no_grad()
def test_locking_a_clip_to_itself_is_the_identity(family):
    latents = family.draw(1)
    plain = family.forward(torch.cat([latents, latents]))[1:]
    everywhere = torch.ones(1, family.tokens, dtype=torch.bool)
    locked = _handed_over(family, latents, latents, everywhere, 0.7)
    torch.testing.assert_close(locked, plain, atol=2e-6, rtol=1e-5)


@torch.no_grad()
def test_the_lock_moves_the_edit_and_only_by_background_tokens(family):
    source, edit = family.draw(1), family.draw(1, seed=1)
    plain = family.forward(edit)
    locked = _handed_over(family, source, edit, _background(family), 0.5)
    assert not torch.allclose(locked, plain, atol=1e-5)
    nothing = torch.zeros(1, family.tokens, dtype=torch.bool)
    free = _handed_over(family, source, edit, nothing, 1.0)
    torch.testing.assert_close(free, plain, atol=2e-6, rtol=1e-5)


@torch.no_grad()
def test_equals_plain_hooks_that_blend(family):
    """An independent way to the same numbers: hooks that keep the source's, hooks that blend."""
    source, edit = family.draw(1), family.draw(1, seed=1)
    background, alpha = _background(family), 0.35
    captured, handles = {}, []

    def hook(site, kind, replacing):
        axis = site.key_axis if kind == "key" else 1

        def run(module, inputs, output):
            if not replacing:
                captured[site.name, kind] = output.clone()
                return None
            new, old = output.movedim(axis, 1).clone(), captured[site.name, kind].movedim(axis, 1)
            first = new.shape[1] - family.tokens if site.text == "before" else 0
            for token in background[0].nonzero()[:, 0] + first:
                new[:, token] = alpha * old[:, token] + (1 - alpha) * new[:, token]
            return new.movedim(1, axis)

        return run

    for replacing, latents in ((False, source), (True, edit)):
        for site in _trunk(family):
            for name, kind in (("norm_k", "key"), ("to_v", "value")):
                module = getattr(site.module, name)
                handles.append(module.register_forward_hook(hook(site, kind, replacing)))
        expected = family.forward(latents)
        while handles:
            handles.pop().remove()
    locked = _handed_over(family, source, edit, background, alpha)
    torch.testing.assert_close(locked, expected, atol=5e-6, rtol=1e-4)


@torch.no_grad()
def test_edits_that_share_a_source_are_what_each_is_alone(family):
    """Two sources, three edits: the first and the last belong to the second source."""
    sources, edits, alphas = family.draw(2), family.draw(3, seed=1), (0.3, 0.8, 0.5)
    backgrounds = rand(3, family.tokens, seed=7) < 0.6
    tap = HandOver(backgrounds, 0.2, torch.tensor([1, 0, 1]))
    with attached(tap.weighted(torch.tensor(alphas), sources=2), _trunk(family)):
        together = family.forward(torch.cat([sources, edits, edits]))[2:]
    for clip, source in enumerate((1, 0, 1)):
        tap = HandOver(backgrounds[clip : clip + 1], 0.2, None)
        with attached(tap.weighted(torch.tensor([alphas[clip]]), sources=1), _trunk(family)):
            pair = torch.cat([sources[source][None], edits[clip][None]])
            alone = family.forward(pair)[1]
        for branch in (clip, clip + 3):
            torch.testing.assert_close(together[branch], alone, atol=5e-6, rtol=1e-4)


class _SlowLockedProcessor:
    """Wan's self-attention in slow steps, the paper's blend after RoPE; batch [source, edit]."""

    def __init__(self, foreground, alpha):
        self.foreground, self.alpha = foreground, alpha

    def __call__(self, attn, hidden_states, text=None, attention_mask=None, rotary_emb=None):
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, (attn.heads, -1))
        key = attn.norm_k(attn.to_k(hidden_states)).unflatten(2, (attn.heads, -1))
        value = attn.to_v(hidden_states).unflatten(2, (attn.heads, -1))
        query, key = (reference.rope_rotate(x, *rotary_emb) for x in (query, key))
        for x in (key, value):
            new, source = x[1].flatten(1), x[0].flatten(1)
            x[1] = reference.fuse(new, source, self.foreground, self.alpha).view_as(x[1])
        return attn.to_out[0](reference.attention(query, key, value).flatten(2))


@torch.no_grad()
@pytest.mark.parametrize("alpha", [0.4, 1.0])
def test_blend_before_rope_equals_the_papers_blend_after_rope(alpha):
    family = wan()
    source, edit, background = family.draw(1), family.draw(1, seed=1), _background(family)
    locked = _handed_over(family, source, edit, background, alpha)
    for site in family.sites:
        site.module.processor = _SlowLockedProcessor(~background[0], alpha)
    expected = family.forward(torch.cat([source, edit]))[1:]
    torch.testing.assert_close(locked, expected, atol=2e-6, rtol=1e-5)


@torch.no_grad()
def test_fused_projections_give_the_same():
    family = wan()
    source, edit, background = family.draw(1), family.draw(1, seed=1), _background(family)
    expected = _handed_over(family, source, edit, background, 0.6)
    family.model.fuse_qkv_projections()
    fused = _handed_over(family, source, edit, background, 0.6)
    torch.testing.assert_close(fused, expected, atol=2e-6, rtol=1e-5)
