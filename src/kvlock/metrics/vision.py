"""What networks that know pictures and words say of a clip: VBench's consistency and aesthetics,
CLIP's alignment.

VBench (arXiv 2311.17982), custom input, as its code has it: raw scores in [0, 1], no leaderboard
normalisation. Frames are uint8 [F, H, W, 3].
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPModel, PreTrainedTokenizerBase, ViTModel

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
DINO_MEAN, DINO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FRAMES_TOGETHER = 16


def frame_consistency(features: Tensor) -> float:
    """VBench's subject and background consistency, of features [F, D] of DINO or CLIP.

    The mean over frames from the second of [max(0, cos to the first) + max(0, cos to the one
    before)] / 2; NaN for one frame.
    """
    if len(features) < 2:
        return float("nan")
    unit = F.normalize(features.float(), dim=-1)
    first, before = (unit[1:] * unit[:1]).sum(-1), (unit[1:] * unit[:-1]).sum(-1)
    return float(((first.clamp(min=0) + before.clamp(min=0)) / 2).mean())


@torch.no_grad()
def dino_features(model: ViTModel, frames: Tensor) -> Tensor:
    """The class token of each frame, [F, D].

    The shorter side becomes the model's, nothing is cropped.
    """
    side = model.config.image_size
    groups = [
        model(
            _shown(group, side, "bilinear", DINO_MEAN, DINO_STD).to(model.device),
            interpolate_pos_encoding=True,
        )
        for group in _groups(frames)
    ]
    return torch.cat([g.last_hidden_state[:, 0] for g in groups]).float().cpu()


@torch.no_grad()
def clip_features(model: CLIPModel, frames: Tensor) -> Tensor:
    """Projected image features, [F, D].

    The shorter side becomes the model's and the middle is taken.
    """
    side = model.config.vision_config.image_size
    groups = [
        model.get_image_features(
            pixel_values=_middle(_shown(g, side, "bicubic", CLIP_MEAN, CLIP_STD), side).to(
                model.device
            )
        )
        for g in _groups(frames)
    ]
    return torch.cat([g.pooler_output for g in groups]).float().cpu()


@torch.no_grad()
def text_features(model: CLIPModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> Tensor:
    """Projected text features, [1, D].

    Words beyond the model's 77 tokens are not read, as with CLIPScore.
    """
    longest = model.config.text_config.max_position_embeddings
    tokens = tokenizer([prompt], return_tensors="pt", truncation=True, max_length=longest)
    return model.get_text_features(**tokens.to(model.device)).pooler_output.float().cpu()


def text_alignment(images: Tensor, text: Tensor) -> float:
    """CLIPScore (arXiv 2104.08718) without its factor 2.5: 100 max(0, cos) of [F, D] to [1, D].

    The mean over frames.
    """
    similarity = F.cosine_similarity(images.float(), text.float(), dim=-1)
    return float(100 * similarity.clamp(min=0).mean())


@torch.no_grad()
def aesthetic_quality(images: Tensor, head: nn.Linear) -> float:
    """LAION's linear head on unit CLIP ViT-L/14 features [F, D], a tenth of it.

    The mean over frames.
    """
    return float(head(F.normalize(images.float(), dim=-1)).mean() / 10)


def mask_crops(frames: Tensor, mask: Tensor) -> Iterator[Tensor]:
    """Each frame's bounding box of the mask, uint8 [1, h, w, 3].

    Frames without a mask are left out. frames: uint8 [F, H, W, 3]; mask: bool [F, H, W].
    """
    for frame, inside in zip(frames, mask):
        if inside.any():
            rows, columns = (inside.any(dim=axis).nonzero().flatten().tolist() for axis in (1, 0))
            yield frame[None, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _groups(frames: Tensor) -> list[Tensor]:
    return [frames[i : i + FRAMES_TOGETHER] for i in range(0, len(frames), FRAMES_TOGETHER)]


def _shown(
    frames: Tensor, side: int, mode: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> Tensor:
    """Normalised, [F, 3, h, w], the shorter side `side` pixels; not antialiased, as in VBench."""
    pixels = frames.permute(0, 3, 1, 2).float()
    height, width = pixels.shape[2:]
    short = min(height, width)
    size = (side * height // short, side * width // short)
    if size != (height, width):
        pixels = F.interpolate(pixels, size=size, mode=mode, align_corners=False)
    shift, scale = (torch.tensor(v)[:, None, None] for v in (mean, std))
    return (pixels / 255 - shift) / scale


def _middle(images: Tensor, side: int) -> Tensor:
    top, left = (round((size - side) / 2) for size in images.shape[2:])
    return images[:, :, top : top + side, left : left + side]
