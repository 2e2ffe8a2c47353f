"""What is done to a transformer before an edit: locks and dropped backgrounds live with it."""

import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.hooks import apply_group_offloading
from peft import LoraConfig

from kvlock.backbones.wan.vace import WanVACEBackbone
from kvlock.cost.counting import peak_of
from support import tiny
from support.edits import (
    BATCHED,
    SEQUENTIAL,
    TEXT_LENGTH,
    Unpacked,
    config,
    dropped,
    latents_of,
    make_backbone,
    wide_request,
)

LOCK = config(fusion_ratio=0.7, background_anchor="latents")
DROP = dropped(config("s-omega"), source_refresh=2)
WAYS = {
    "lock": (LOCK, BATCHED, lambda backbone: backbone),
    "lock, layer by layer": (LOCK, SEQUENTIAL, lambda backbone: backbone),
    "lock, branch by branch": (LOCK, SEQUENTIAL, Unpacked),
    "drop": (DROP, BATCHED, lambda backbone: backbone),
}


@pytest.fixture
def backbone():
    return make_backbone("wan-vace")


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


def _latents(backbone, way):
    settings, execution, as_seen = way
    return latents_of(as_seen(backbone), [wide_request()], settings, execution)


def _agrees(backbone, way, expected, tolerance=2e-5):
    result = _latents(backbone, way)
    torch.testing.assert_close(result, expected, atol=tolerance, rtol=1e-4)


def test_regional_compile_does_not_recompile_by_step_or_layer(way):
    counts = []
    for layers in (3, 5):
        backbone, graphs = WanVACEBackbone(tiny.vace_pipe(layers), TEXT_LENGTH), []
        expected = _latents(backbone, way)
        torch._dynamo.reset()

        def counting(graph, inputs, graphs=graphs):
            graphs.append(graph)
            return graph.forward

        backbone.pipe.transformer.compile_repeated_blocks(
            backend=counting, fullgraph=True, dynamic=True
        )
        _agrees(backbone, way, expected)
        counts.append(len(graphs))
        _latents(backbone, way)
        assert len(graphs) == counts[-1] > 0
    torch._dynamo.reset()
    assert counts[0] == counts[1]


@pytest.mark.parametrize("backend", ["_native_math", "native"])
def test_attention_backends(backbone, way, backend):
    expected = _latents(backbone, way)
    backbone.pipe.transformer.set_attention_backend(backend)
    _agrees(backbone, way, expected)
    backbone.pipe.transformer.set_attention_backend("native")


def test_group_offload(backbone, way):
    expected = _latents(backbone, way)
    device = torch.device("cpu")
    apply_group_offloading(
        backbone.pipe.transformer,
        device,
        device,
        offload_type="block_level",
        num_blocks_per_group=1,
    )
    _agrees(backbone, way, expected)


def test_group_offload_of_several_blocks_is_refused(backbone):
    device = torch.device("cpu")
    apply_group_offloading(
        backbone.pipe.transformer,
        device,
        device,
        offload_type="block_level",
        num_blocks_per_group=2,
    )
    for packed in ("drop", "lock, layer by layer"):
        with pytest.raises(ValueError, match="expected num_blocks_per_group=1"):
            _latents(backbone, WAYS[packed])
    for plain in ("lock", "lock, branch by branch"):
        assert torch.isfinite(_latents(backbone, WAYS[plain])).all()


def test_model_offload(backbone, way):
    """The hook that enable_model_cpu_offload puts on each component, with the CPU as the device."""
    from accelerate import cpu_offload_with_hook

    expected = _latents(backbone, way)
    _, hook = cpu_offload_with_hook(backbone.pipe.transformer, torch.device("cpu"))
    _agrees(backbone, way, expected)
    hook.remove()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(backbone, way, dtype):
    expected = _latents(backbone, way)
    backbone.pipe.transformer.to(dtype)
    half = _latents(backbone, way)
    assert half.dtype == torch.float32 and torch.isfinite(half).all()
    assert (half - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_lora(backbone, way):
    before = _latents(backbone, way)
    transformer = backbone.pipe.transformer
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    transformer.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    with_lora = _latents(backbone, way)
    assert (with_lora - before).abs().max() > 1e-4
    transformer.fuse_lora()
    transformer.unload_lora()
    _agrees(backbone, way, with_lora, tolerance=2e-4)


class _Int8Linear(torch.nn.Module):
    """Weights as int8 with a scale a row, as bitsandbytes and torchao keep them."""

    def __init__(self, linear):
        super().__init__()
        scale = linear.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("int8", (linear.weight.detach() / scale).round().to(torch.int8))
        self.bias = linear.bias

    def forward(self, rows):
        return torch.nn.functional.linear(rows, self.int8.to(rows.dtype) * self.scale, self.bias)


def test_quantised_layers(backbone, way):
    expected = _latents(backbone, way)
    transformer = backbone.pipe.transformer
    for block in (*transformer.blocks, *transformer.vace_blocks):
        for attention in (block.attn1, block.attn2):
            for name in ("to_q", "to_k", "to_v"):
                setattr(attention, name, _Int8Linear(getattr(attention, name)))
    quantised = _latents(backbone, way)
    assert not torch.equal(quantised, expected)
    assert (quantised - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_float8_storage(backbone, way):
    expected = _latents(backbone, way)
    backbone.pipe.transformer.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    stored = _latents(backbone, way)
    assert (stored - expected).abs().mean() < 0.2 * expected.abs().mean()


def test_fused_projections(backbone, way):
    expected = _latents(backbone, way)
    backbone.pipe.transformer.fuse_qkv_projections()
    _agrees(backbone, way, expected)


def test_a_tiled_vae_in_float32_takes_less_and_gives_nearly_the_same(backbone):
    video = torch.empty(1, 3, 5, 480, 832, device="meta")
    peaks = []
    for tiled in (False, True):
        with torch.device("meta"):
            vae = AutoencoderKLWan().eval()
        if tiled:
            vae.enable_tiling()
        peaks.append(peak_of(lambda vae=vae: vae.encode(video)))
    assert peaks[1] < peaks[0] / 3
    clip = wide_request().video[None].repeat(1, 1, 4, 4, 1)
    whole = backbone.encode_video(clip)
    backbone.pipe.vae.enable_tiling(64, 64, 48, 48)
    tiled = backbone.encode_video(clip)
    assert tiled.dtype == torch.float32 and not torch.equal(tiled, whole)
    assert (tiled - whole).abs().mean() < 0.2 * whole.abs().mean()
