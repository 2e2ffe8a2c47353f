"""LPIPS (Zhang et al., arXiv 1801.03924), version 0.1 on AlexNet, as a map, so that the background
can stand alone.

The network is small enough to write out: the kept packages need torchvision, which does not load
beside every torch.
"""

import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

# LPIPS' own normalisation of pixels in [-1, 1]
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
SMALLEST = 31  # px, what AlexNet's convolutions leave something of


class LPIPS(nn.Module):
    """AlexNet's five convolutions, and what each of their channels weighs."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(3, 64, 11, stride=4, padding=2),
                nn.Conv2d(64, 192, 5, padding=2),
                nn.Conv2d(192, 384, 3, padding=1),
                nn.Conv2d(384, 256, 3, padding=1),
                nn.Conv2d(256, 256, 3, padding=1),
            ]
        )
        self.weights = nn.ModuleList(
            [nn.Conv2d(channels, 1, 1, bias=False) for channels in (64, 192, 384, 256, 256)]
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The distance at every pixel, [B, H, W], of images [B, 3, H, W] in [-1, 1]."""
        distance = first.new_zeros(len(first), *first.shape[2:])
        for a, b, weight in zip(self._features(first), self._features(second), self.weights):
            layer, size = weight((a - b) ** 2), first.shape[2:]
            distance += F.interpolate(layer, size=size, mode="bilinear", align_corners=False)[:, 0]
        return distance

    def _features(self, images: Tensor) -> list[Tensor]:
        """After each ReLU, of unit length along the channels."""
        shift, scale = (images.new_tensor(v)[:, None, None] for v in (SHIFT, SCALE))
        features, found = (images - shift) / scale, []
        for i, convolution in enumerate(self.convolutions):
            if i in (1, 2):
                features = F.max_pool2d(features, 3, stride=2)
            features = F.relu(convolution(features))
            found.append(features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found


def load_lpips(path: Path) -> LPIPS:
    """From the state of the `lpips` package's LPIPS(net="alex"), as safetensors.

    Raises ValueError for others.
    """
    try:
        state = load_file(path)
    except Exception as error:  # of safetensors, another kind for each way in which a file is none
        raise ValueError(
            f"{path} cannot be read as safetensors; save or download it again"
        ) from error
    model = LPIPS()
    renamed = {new: value for name, value in state.items() if (new := _our_name(name))}
    missing = sorted(set(model.state_dict()) - set(renamed))
    if missing:
        raise ValueError(
            f"{path} has no {missing[0]}; expected the state of lpips.LPIPS(net='alex'), saved by "
            "safetensors.torch.save_model"
        )
    try:
        model.load_state_dict(renamed)
    except RuntimeError as error:
        last = str(error).splitlines()[-1].strip()
        raise ValueError(f"{path} is not LPIPS on AlexNet: {last}") from error
    return model.eval()


def _our_name(name: str) -> str | None:
    """The name that a tensor of the `lpips` package has here, or None for one that is not needed.

    `net.slice2.3.weight` -> `convolutions.1.weight`; `lin2.model.1.weight` -> `weights.2.weight`.
    """
    if found := re.fullmatch(r"net\.slice([1-5])\.\d+\.(weight|bias)", name):
        return f"convolutions.{int(found[1]) - 1}.{found[2]}"
    found = re.fullmatch(r"(?:lin|lins\.)([0-4])\.model\.1\.weight", name)
    return f"weights.{found[1]}.weight" if found else None


@torch.no_grad()
def lpips_maps(model: LPIPS, source: Tensor, edited: Tensor) -> Tensor:
    """The map of every frame, float [F, H, W] on the CPU, of uint8 clips [F, H, W, 3].

    Frame by frame: memory is one frame's.
    """
    device = next(model.parameters()).device
    maps = []
    for pair in zip(source, edited):
        first, second = (f.to(device).permute(2, 0, 1)[None] / 127.5 - 1 for f in pair)
        maps.append(model(first, second)[0].cpu())
    return torch.stack(maps)


def lpips_background(model: LPIPS, source: Tensor, edited: Tensor, mask: Tensor) -> float:
    """The map's mean over background pixels, per frame; the mean over frames.

    source, edited: uint8 [F, H, W, 3]; mask: bool [F, H, W]. What AlexNet sees reaches across the
    mask's edge, so an edit is felt a little beyond it. NaN without background, or for sides below
    31 px.
    """
    if min(mask.shape[1:]) < SMALLEST or mask.all():
        return float("nan")
    pairs = zip(lpips_maps(model, source, edited).numpy(), mask.cpu().numpy())
    return float(np.mean([m[~inside].mean() for m, inside in pairs if not inside.all()]))
