"""Patches are embedded by a matrix where they are packed."""

import pytest
import torch
from peft import LoraConfig
from torch import nn

from kvlock.backbones.wan.packing import _is_plain, _PatchEmbedding
from kvlock.methods.edit import edit_clips
from support.draws import randn
from support.edits import BACKBONES, SEQUENTIAL, config, make_backbone, wide_request


@pytest.mark.parametrize("channels", [16, 96])
@pytest.mark.parametrize("patch", [(1, 2, 2), (2, 2, 2)])
def test_it_is_the_convolution(channels, patch):
    convolution = nn.Conv3d(channels, 48, patch, stride=patch)
    patches = randn(1, channels, 30 * patch[0], *patch[1:])
    with torch.no_grad():
        expected, result = convolution(patches), _PatchEmbedding(convolution)(patches)
    assert result.shape == expected.shape == (1, 48, 30, 1, 1)
    torch.testing.assert_close(result, expected, atol=5e-6, rtol=0)


@pytest.mark.parametrize("name", BACKBONES)
def test_no_convolution_runs_in_a_packed_forward(name):
    backbone, ran = make_backbone(name), []
    for module in backbone.pipe.transformer.modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(lambda *_: ran.append("convolution"))
    locked = config("rigid", lock_steps=1.0)
    edit_clips(backbone, [wide_request()], locked, SEQUENTIAL)
    assert not ran
    edit_clips(backbone, [wide_request()], locked)
    assert ran


def test_an_embedding_with_an_adapter_or_a_hook_runs_as_it_is():
    transformer = make_backbone("wan").pipe.transformer
    assert _is_plain(transformer.patch_embedding)
    transformer.patch_embedding._hf_hook = object()
    assert not _is_plain(transformer.patch_embedding)
    del transformer.patch_embedding._hf_hook
    transformer.add_adapter(LoraConfig(r=2, target_modules=["patch_embedding"]))
    assert not _is_plain(transformer.patch_embedding)
