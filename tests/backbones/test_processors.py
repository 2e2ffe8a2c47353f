"""How the seam lives with a transformer's processors: wrapped for a forward, then put back."""

import gc
import weakref

import pytest
import torch
from diffusers import FirstBlockCacheConfig

from kvlock.backbones.seam import AttentionSite, attached
from kvlock.contract.tap import Tap
from kvlock.core.tap import HandOver
from support import tiny
from support.draws import rand
from support.edits import make_backbone
from support.families import wan


def _hand_over(family, alpha):
    tap = HandOver(rand(1, family.tokens, seed=7) < 0.6, 0.0, None)
    return tap.weighted(torch.tensor([alpha]), sources=1)


@torch.no_grad()
def test_processors_are_put_back_also_after_an_exception(family):
    before, tap = [site.module.processor for site in family.sites], Tap()
    with pytest.raises(RuntimeError, match="boom"), attached(tap, family.sites):
        pairs = zip(family.sites, before)
        assert all(site.module.processor is not processor for site, processor in pairs)
        assert [layer.name for layer in tap.layers] == [site.name for site in family.sites]
        raise RuntimeError("boom")
    assert all(site.module.processor is p for site, p in zip(family.sites, before))
    assert tap.layers == []


def test_attention_backend_set_while_attached_reaches_the_inner_processor():
    family = wan()
    with pytest.raises(RuntimeError, match="was not run"), attached(Tap(), family.sites):
        family.model.set_attention_backend("_native_math")
    try:
        backends = {s.module.processor._attention_backend for s in family.sites}
        assert backends == {"_native_math"}
    finally:
        family.model.set_attention_backend("native")  # the name is also diffusers' global default


@torch.no_grad()
def test_a_processor_that_is_replaced_between_forwards_is_used_from_then_on():
    family = wan()
    tap, latents = _hand_over(family, 0.6), family.draw(2)
    with attached(tap, family.sites):
        family.forward(latents)
    used = []

    class Noting(type(family.sites[0].module.processor)):
        def __call__(self, attn, *args, **kwargs):
            used.append(1)
            return super().__call__(attn, *args, **kwargs)

    for site in family.sites:
        site.module.processor = Noting()
    with attached(tap, family.sites):
        family.forward(latents)
    assert len(used) == len(family.sites)


@torch.no_grad()
@pytest.mark.parametrize("when", ["before", "after"])
def test_survives_compile_in_one_graph_without_recompiling_per_step(when):
    """Compiled before the tap is attached or while it is; then attached anew or once for all."""
    torch._dynamo.reset()
    family, graphs = wan(), []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def compiled_now():
        return torch.compile(family.forward, backend=counting, fullgraph=True)

    latents, expected = family.draw(2), []
    for alpha in (0.2, 0.9):
        with attached(_hand_over(family, alpha), family.sites):
            expected.append(family.forward(latents)[1:])
    tap = _hand_over(family, 0.0)
    compiled = compiled_now() if when == "before" else None
    for alpha, wanted in zip((0.2, 0.9), expected):
        with attached(tap.weighted(torch.tensor([alpha]), sources=1), family.sites):
            compiled = compiled or compiled_now()
            out = compiled(latents)[1:]
        torch.testing.assert_close(out, wanted, atol=2e-6, rtol=1e-5)
    count = len(graphs)
    assert count > 0
    for alpha in (0.1, 0.5, 0.7):
        with attached(tap.weighted(torch.tensor([alpha]), sources=1), family.sites):
            compiled(latents)
    with attached(tap, family.sites):
        for alpha in (0.1, 0.5, 0.7):
            tap.weighted(torch.tensor([alpha]), sources=1)
            compiled(latents)
    assert len(graphs) == count


@torch.no_grad()
def test_a_site_that_is_not_run_is_an_error():
    family = wan()
    other = tiny.WanTransformer3DModel(num_layers=1, **tiny.TRANSFORMER)
    stray = AttentionSite("stray", other.blocks[0].attn1)
    sites = [*family.sites, stray]
    with pytest.raises(RuntimeError, match="stray was not run in a locked forward"):
        with attached(_hand_over(family, 1.0), sites):
            family.forward(family.draw(2))
    with pytest.raises(RuntimeError, match="was not run"), attached(Tap(), family.sites):
        pass


@torch.no_grad()
def test_no_cycle_holds_a_tap_after_its_forward():
    family = wan()
    tap = _hand_over(family, 1.0)
    with attached(tap, family.sites):
        family.forward(family.draw(2))
    gone = weakref.ref(tap)
    gc.disable()
    try:
        del tap
        assert gone() is None
    finally:
        gc.enable()


def test_step_caches_are_refused():
    backbone = make_backbone("wan")
    backbone.pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(ValueError, match="call transformer.disable_cache"):
        backbone.tapped(Tap(), torch.tensor(500.0))
