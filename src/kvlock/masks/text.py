"""Where words are in a clip, by a network whose weights the user has.

GroundingDINO (arXiv 2303.05499), OWLv2 (arXiv 2306.09683) or CLIPSeg (arXiv 2112.10003); what the
weights are says their config. Image processors are those that need no torchvision.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kvlock.masks.grabcut import Box
from kvlock.masks.weights import load_weights, model_type

LOOKED_AT = 5  # frames, evenly over the clip; the surest counts
EXAMPLE = "IDEA-Research/grounding-dino-tiny"
SHARE = 0.5  # of CLIPSeg's surest pixel: what belongs to the thing


class Kind(NamedTuple):
    """A finder: its classes in transformers, and the least score that counts as found."""

    model: str
    images: str
    least: float


KINDS = {
    "grounding-dino": Kind(
        "GroundingDinoForObjectDetection", "GroundingDinoImageProcessorPil", 0.25
    ),
    "owlv2": Kind("Owlv2ForObjectDetection", "Owlv2ImageProcessorPil", 0.1),
    "clipseg": Kind("CLIPSegForImageSegmentation", "ViTImageProcessorPil", 0.3),
}


class Finder(NamedTuple):
    """A loaded finder; `kind` is its config's model_type."""

    kind: str
    model: Any
    images: Any
    tokenizer: Any


def find(video: Tensor, text: str, path: str, device: str) -> tuple[int, Box]:
    """The frame of uint8 [F, H, W, 3] in which the words are found most surely, and their box.

    Raises ValueError where the weights are not at hand, or nothing is found.
    """
    finder = load_finder(path, device)
    numbers = torch.linspace(0, len(video) - 1, min(LOOKED_AT, len(video))).round().int().tolist()
    scores, boxes = zip(*(found_in(finder, video[t], text) for t in numbers))
    best = max(range(len(numbers)), key=lambda i: scores[i])
    if scores[best] < KINDS[finder.kind].least:
        raise ValueError(
            f"--text {text!r}: nothing like it was found (the best score is {scores[best]:.2f}, "
            f"{KINDS[finder.kind].least} counts); give other words, or --box"
        )
    return numbers[best], boxes[best]


def load_finder(path: str, device: str) -> Finder:
    """By the config's model_type. Raises ValueError for none, and for another kind of network."""
    import transformers

    kind = model_type(path, "--finder", EXAMPLE, *KINDS)
    model = load_weights(
        getattr(transformers, KINDS[kind].model), path, "--finder", EXAMPLE, device
    )
    try:
        images = getattr(transformers, KINDS[kind].images).from_pretrained(
            path, local_files_only=True
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--finder {path}: preprocessor_config.json or the tokenizer is missing; "
            f"download the whole repository (hf download {EXAMPLE})"
        ) from error
    return Finder(kind, model, images, tokenizer)


@torch.no_grad()
def found_in(finder: Finder, frame: Tensor, text: str) -> tuple[float, Box]:
    """The best score in [0, 1] in a frame uint8 [H, W, 3], and its box."""
    words = f"{text.lower().rstrip(' .')}." if finder.kind == "grounding-dino" else text
    tokens = finder.tokenizer([words], return_tensors="pt")
    pictures = finder.images(images=[frame.numpy()], return_tensors="pt")
    output = finder.model(**tokens.to(finder.model.device), **pictures.to(finder.model.device))
    height, width = frame.shape[:2]
    if finder.kind == "clipseg":
        return _marked(output.logits, (height, width))
    scores = output.logits[0].float().sigmoid().amax(-1)
    best = int(scores.argmax())
    x, y, w, h = output.pred_boxes[0, best].tolist()
    wide, high = (width, height) if finder.kind == "grounding-dino" else [max(width, height)] * 2
    corners = ((x - w / 2) * wide, (y - h / 2) * high, (x + w / 2) * wide, (y + h / 2) * high)
    return float(scores[best]), _inside(corners, (height, width))


def _marked(logits: Tensor, size: tuple[int, int]) -> tuple[float, Box]:
    """CLIPSeg's surest pixel, and the box around all that are half as sure."""
    side = logits.shape[-2:]
    sure = F.interpolate(logits.reshape(1, 1, *side).float().sigmoid(), size, mode="bilinear")[0, 0]
    ys, xs = torch.nonzero(sure >= SHARE * sure.max(), as_tuple=True)
    corners = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
    return float(sure.max()), _inside(corners, size)


def _inside(corners: tuple[float, float, float, float], size: tuple[int, int]) -> Box:
    """Left, top, right, bottom as a box of whole pixels inside (height, width), of one at least."""
    left, right = (min(max(round(v), 0), size[1]) for v in corners[::2])
    top, bottom = (min(max(round(v), 0), size[0]) for v in corners[1::2])
    left, top = min(left, size[1] - 1), min(top, size[0] - 1)
    return left, top, max(right - left, 1), max(bottom - top, 1)
