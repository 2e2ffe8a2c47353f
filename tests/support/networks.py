"""Tiny random networks of the real classes, for metrics by networks."""

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel

# Of the convolutions in torchvision's alexnet().features, and (inputs, outputs, side) of each.
ALEXNET_PLACES = (0, 3, 6, 8, 10)
ALEXNET_SIZES = ((3, 64, 11), (64, 192, 5), (192, 384, 3), (384, 256, 3), (256, 256, 3))


def randn(*shape: int, seed: int = 0) -> Tensor:
    """A normal sample that belongs to its seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_clip(frames: int = 3, height: int = 40, width: int = 48, seed: int = 0) -> Tensor:
    """Noise, uint8 [F, H, W, 3]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (frames, height, width, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def lpips_state() -> dict[str, Tensor]:
    """Random weights under the names that the lpips package's state has."""
    state = {"scaling_layer.shift": torch.zeros(1, 3, 1, 1)}
    for i, (place, (before, after, side)) in enumerate(zip(ALEXNET_PLACES, ALEXNET_SIZES)):
        weight = randn(after, before, side, side, seed=i) / (before * side**2) ** 0.5
        state[f"net.slice{i + 1}.{place}.weight"] = weight
        state[f"net.slice{i + 1}.{place}.bias"] = randn(after, seed=10 + i)
        state[f"lin{i}.model.1.weight"] = randn(1, after, 1, 1, seed=20 + i).abs()
    return state


def clip_model() -> CLIPModel:
    """Pictures of 32 px, prompts of up to 6 tokens, features of 12."""
    torch.manual_seed(0)
    layers = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    words = dict(vocab_size=8, max_position_embeddings=6, eos_token_id=1, bos_token_id=0)
    config = CLIPConfig(
        text_config=layers | words | dict(pad_token_id=0),
        vision_config=layers | dict(image_size=32, patch_size=8),
        projection_dim=12,
    )
    return CLIPModel(config).eval()


def dino() -> ViTModel:
    """Pictures of 32 px, features of 16."""
    torch.manual_seed(0)
    layers = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    config = ViTConfig(image_size=32, patch_size=8, **layers)
    return ViTModel(config, add_pooling_layer=False).eval()
