"""The seam's contract, on the real classes of six families."""

import pytest
import torch
from diffusers import FirstBlockCacheConfig

import reference
import tiny
from families import FAMILIES, wan
from kvlock.backbones.wan import attention_sites
from kvlock.core.protocols import AttentionSite
from kvlock.core.tap import Tap, attached


@pytest.fixture(params=FAMILIES, ids=lambda f: f.__name__)
def family(request):
    return request.param()


def _background(family, share=0.6, rows=1):
    return torch.rand(rows, family.tokens, generator=torch.Generator().manual_seed(7)) < share


@torch.no_grad()
def _handed_over(family, source, edit, background, alpha):
    tap = Tap(background)
    with attached(tap, family.sites), tap.handing_over(torch.as_tensor(alpha).expand(len(source)).float()):
        out = family.forward(torch.cat([source, edit]))
    return out[len(source) :]


@torch.no_grad()
def test_ratio_zero_is_the_plain_model_to_the_bit(family):
    source, edit = family.rows(1), family.rows(1, seed=1)
    plain = family.forward(torch.cat([source, edit]))[1:]
    assert torch.equal(_handed_over(family, source, edit, _background(family), 0.0), plain)


@torch.no_grad()
def test_a_tap_that_is_off_changes_nothing(family):
    rows = family.rows(2)
    plain = family.forward(rows)
    with attached(Tap(_background(family)), family.sites):
        assert torch.equal(family.forward(rows), plain)


@torch.no_grad()
def test_locking_a_clip_to_itself_is_the_identity(family):
    rows = family.rows(1)
    plain = family.forward(torch.cat([rows, rows]))[1:]
    locked = _handed_over(family, rows, rows, torch.ones(1, family.tokens, dtype=torch.bool), 0.7)
    torch.testing.assert_close(locked, plain, atol=2e-6, rtol=1e-5)


@torch.no_grad()
def test_the_lock_moves_the_edit_and_only_by_background_tokens(family):
    source, edit = family.rows(1), family.rows(1, seed=1)
    plain = family.forward(edit)
    assert not torch.allclose(_handed_over(family, source, edit, _background(family), 0.5), plain, atol=1e-5)
    nothing = torch.zeros(1, family.tokens, dtype=torch.bool)
    torch.testing.assert_close(_handed_over(family, source, edit, nothing, 1.0), plain, atol=2e-6, rtol=1e-5)


@torch.no_grad()
def test_equals_plain_hooks_that_blend(family):
    """An independent way to the same numbers: capture with forward hooks, then replace with forward hooks."""
    source, edit = family.rows(1), family.rows(1, seed=1)
    background, alpha = _background(family), 0.35
    captured, handles = {}, []

    def hook(site, kind, replacing):
        axis = site.key_axis if kind == "key" else 1

        def run(module, inputs, output):
            if not replacing:
                captured[site.name, kind] = output.clone()
                return None
            new, old = output.movedim(axis, 1).clone(), captured[site.name, kind].movedim(axis, 1)
            video = range(new.shape[1])[site.video_tokens(family.tokens)]
            for token, position in enumerate(video):
                if background[0, token]:
                    new[:, position] = alpha * old[:, position] + (1 - alpha) * new[:, position]
            return new.movedim(1, axis)

        return run

    for replacing, rows in ((False, source), (True, edit)):
        for site in (s for s in family.sites if not s.control):
            handles.append(site.module.norm_k.register_forward_hook(hook(site, "key", replacing)))
            handles.append(site.module.to_v.register_forward_hook(hook(site, "value", replacing)))
        expected = family.forward(rows)
        while handles:
            handles.pop().remove()
    locked = _handed_over(family, source, edit, background, alpha)
    torch.testing.assert_close(locked, expected, atol=5e-6, rtol=1e-4)


@torch.no_grad()
def test_processors_are_put_back_also_after_an_exception(family):
    before = [site.module.processor for site in family.sites]
    with pytest.raises(RuntimeError, match="boom"), attached(Tap(_background(family)), family.sites):
        assert all(site.module.processor is not p for site, p in zip(family.sites, before))
        raise RuntimeError("boom")
    assert all(site.module.processor is p for site, p in zip(family.sites, before))


class _SlowLockedProcessor:
    """Wan's self-attention in slow steps, with the paper's blend after RoPE; rows [source, edit]."""

    def __init__(self, foreground, alpha):
        self.foreground, self.alpha = foreground, alpha

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, (attn.heads, -1))
        key = attn.norm_k(attn.to_k(hidden_states)).unflatten(2, (attn.heads, -1))
        value = attn.to_v(hidden_states).unflatten(2, (attn.heads, -1))
        query, key = (reference.rope_rotate(x, *rotary_emb) for x in (query, key))
        for x in (key, value):
            x[1] = reference.fuse(x[1].flatten(1), x[0].flatten(1), self.foreground, self.alpha).view_as(x[1])
        return attn.to_out[0](reference.attention(query, key, value).flatten(2))


@torch.no_grad()
@pytest.mark.parametrize("alpha", [0.4, 1.0])
def test_blend_before_rope_equals_the_papers_blend_after_rope(alpha):
    family = wan()
    source, edit, background = family.rows(1), family.rows(1, seed=1), _background(family)
    locked = _handed_over(family, source, edit, background, alpha)
    for site in family.sites:
        site.module.processor = _SlowLockedProcessor(~background[0], alpha)
    expected = family.forward(torch.cat([source, edit]))[1:]
    torch.testing.assert_close(locked, expected, atol=2e-6, rtol=1e-5)


@torch.no_grad()
def test_fused_projections_give_the_same():
    family = wan()
    source, edit, background = family.rows(1), family.rows(1, seed=1), _background(family)
    expected = _handed_over(family, source, edit, background, 0.6)
    family.model.fuse_qkv_projections()
    torch.testing.assert_close(_handed_over(family, source, edit, background, 0.6), expected, atol=2e-6, rtol=1e-5)


def test_attention_backend_set_while_attached_reaches_the_inner_processor():
    family = wan()
    with attached(Tap(_background(family)), family.sites):
        family.model.set_attention_backend("_native_math")
    try:
        assert all(s.module.processor._attention_backend == "_native_math" for s in family.sites)
    finally:
        family.model.set_attention_backend("native")  # the name is also diffusers' global default


@torch.no_grad()
@pytest.mark.parametrize("when", ["before", "after"])
def test_survives_compile_in_one_graph_without_recompiling_per_step(when):
    torch._dynamo.reset()
    family, graphs = wan(), []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    source, edit, background = family.rows(1), family.rows(1, seed=1), _background(family)
    expected = [_handed_over(family, source, edit, background, a) for a in (0.2, 0.9)]
    tap, rows = Tap(background), torch.cat([source, edit])
    if when == "before":
        compiled = torch.compile(family.forward, backend=counting, fullgraph=True)
    with attached(tap, family.sites):
        if when == "after":
            compiled = torch.compile(family.forward, backend=counting, fullgraph=True)
        for alpha, wanted in zip((0.2, 0.9), expected):
            with tap.handing_over(torch.tensor([alpha])):
                out = compiled(rows)[1:]
            torch.testing.assert_close(out, wanted, atol=2e-6, rtol=1e-5)
        count = len(graphs)
        for alpha in (0.1, 0.5, 0.7):
            with tap.handing_over(torch.tensor([alpha])):
                compiled(rows)
        assert len(graphs) == count


@torch.no_grad()
def test_a_site_that_is_never_heard_is_an_error():
    family = wan()
    stray = AttentionSite("stray", tiny.WanTransformer3DModel(num_layers=1, **tiny.TRANSFORMER).blocks[0].attn1)
    tap = Tap(_background(family))
    with attached(tap, [*family.sites, stray]):
        with pytest.raises(RuntimeError, match="stray was never heard"), tap.handing_over(torch.ones(1)):
            family.forward(family.rows(2))


def test_step_caches_are_refused():
    model = wan().model
    model.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(ValueError, match="disable_cache"):
        attention_sites(model)
