"""VACE-Benchmark."""

from collections.abc import Iterator
from pathlib import Path

from kvlock.bench.datasets.layout import Prompts, item_id, prompts_of, subfolder
from kvlock.bench.suite import Item


def vace_benchmark(root: Path, prompts: Prompts) -> Iterator[Item]:
    """assets/examples/TASK/{ori_video,src_video,src_mask}.mp4; tasks without a mask are left out.

    `src_video` may be grey inside the mask already, so the source is `ori_video` where there is
    one. Raises ValueError for a mask without a clip, or a clip without a prompt.
    """
    for mask in sorted(subfolder(root, "assets/examples").glob("*/src_mask.mp4")):
        task = mask.parent
        original, prepared = task / "ori_video.mp4", task / "src_video.mp4"
        video = original if original.exists() else prepared
        if not video.exists():
            missing = "neither ori_video.mp4 nor src_video.mp4"
            raise ValueError(f"{task} has a src_mask.mp4, but {missing}")
        yield Item(
            item_id(task.name),
            video=str(video),
            mask=str(mask),
            edit_type=task.name,
            **prompts_of(prompts, task.name),
        )
