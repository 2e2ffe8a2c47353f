"""SAM 2 (arXiv 2408.00714) tracks a thing through a clip: transformers' own model, the user's weights.

Its processors need torchvision, so frames and prompts are put into the session here.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kvlock.masks.grabcut import Box, Point
from kvlock.masks.propagate import Carried, check_keys
from kvlock.masks.weights import load_weights

if TYPE_CHECKING:
    from transformers import Sam2VideoModel

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OFF, ON, CORNERS = 0, 1, (2, 3)  # the prompt encoder's labels of points
STABLE = 1.0  # logits on both sides of the outline between which a sure mask hardly changes


def load_sam2(path: str, device: str) -> "Sam2VideoModel":
    """The model on its device. Raises ValueError where the weights are not at hand."""
    from transformers import Sam2VideoModel

    return load_weights(Sam2VideoModel, path, "--sam2", "facebook/sam2.1-hiera-small", device)


@torch.no_grad()
def track(
    model: "Sam2VideoModel",
    video: Tensor,
    painted: Mapping[int, Tensor],
    boxes: Mapping[int, Box],
    points: Mapping[int, tuple[Point, ...]],
    not_points: Mapping[int, tuple[Point, ...]],
) -> Carried:
    """Masks of a clip uint8 [F, H, W, 3] from what is known of some frames, by frame number.

    painted: bool [H, W]; a box is (x, y, width, height). From the first such frame it tracks to the
    end, then to the beginning. The confidence is the lesser of the model's own probability that the
    thing is seen, and SAM's stability score: the IoU of the masks at logits 1 and -1.
    """
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    frames, *size = video.shape[:3]
    if painted:
        check_keys(painted, (frames, *size))
    side: Any = model.image_size  # one number for both
    number, seen = 1, (side, side)
    session = Sam2VideoInferenceSession(
        torch.stack([_seen(frame, seen) for frame in video]),
        *size,
        inference_device=model.device,
        dtype=model.dtype,
    )
    thing = session.obj_id_to_idx(number)
    marked = sorted({*painted, *boxes, *points, *not_points})
    for t in marked:
        if t in painted:
            mask = F.interpolate(painted[t][None, None].float(), seen, mode="area")
            session.add_mask_inputs(thing, t, (mask >= 0.5).float())
        else:
            prompt = _prompt(boxes.get(t), points.get(t, ()), not_points.get(t, ()), size, seen)
            session.add_point_inputs(thing, t, prompt)
        session.obj_with_new_inputs = [number]
        model(session, frame_idx=t)
    steps = model.propagate_in_video_iterator
    masks = torch.zeros(video.shape[:3], dtype=torch.bool)
    confidence = torch.zeros(len(video))
    for reverse in (False, True):
        tracked: Iterable[Any] = steps(session, start_frame_idx=marked[0], reverse=reverse)
        for output in tracked:
            masks[output.frame_idx], confidence[output.frame_idx] = _read(output, size)
    for t, mask in painted.items():
        masks[t], confidence[t] = mask, 1.0
    return Carried(masks, confidence)


def _seen(frame: Tensor, size: tuple[int, int]) -> Tensor:
    """A frame uint8 [H, W, 3] as the model sees it, [3, h, w]."""
    pixels = frame.permute(2, 0, 1)[None].float() / 255
    scaled = F.interpolate(pixels, size, mode="bilinear", antialias=True)[0]
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    return (scaled - mean) / std


def _prompt(
    box: Box | None,
    on: tuple[Point, ...],
    off: tuple[Point, ...],
    size: Sequence[int],
    seen: tuple[int, int],
) -> dict[str, Tensor]:
    """Points in the pixels of `seen` (height, width), [1, 1, N, 2], and labels; a box comes first."""
    corners = [box[:2], (box[0] + box[2], box[1] + box[3])] if box else []
    scale = torch.tensor([seen[1] / size[1], seen[0] / size[0]])
    coordinates = torch.tensor([*corners, *on, *off], dtype=torch.float32) * scale
    labels = [*CORNERS[: len(corners)], *[ON] * len(on), *[OFF] * len(off)]
    return {
        "point_coords": coordinates[None, None],
        "point_labels": torch.tensor(labels, dtype=torch.int32)[None, None],
    }


def _read(output: Any, size: Sequence[int]) -> tuple[Tensor, float]:
    """A frame's mask, bool [H, W], and its confidence."""
    logits = F.interpolate(output.pred_masks.float().cpu(), list(size), mode="bilinear")[0, 0]
    sure, possible = (logits > STABLE).sum(), (logits > -STABLE).sum()
    stability = float(sure / possible) if possible else 0.0
    seen = float(output.object_score_logits.float().sigmoid().max())
    return logits > 0, min(seen, stability)
