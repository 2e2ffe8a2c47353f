"""One tiny family: its pipeline, and how that pipeline's own `__call__` is asked."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kvlock.contract.types import EditRequest
from kvlock.core.config import KVLockConfig

TEXT_LENGTH = 16
Latents = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Tiny:
    """One family.

    row: its name in FAMILIES. size: frames, height, width of a clip of 12 tokens or more.
    pipe: makes the pipeline, the same weights each time. attention: the names of its self-attention
    layers, with `*` for a number; `keys` the token axis of their keys, `text` where text tokens are.
    to_stock, from_stock: latents [B, C, F, H, W] to the pipeline's own layout, and what it gives
    back. asked: further arguments of its call, from a request; unasked: what it does not take.
    during: what is changed in the pipeline while it runs. tolerance: how far the stock
    pipeline's latents may be from ours with the lock off, and `why` where that is not 0.
    """

    row: str
    pipe: Callable[[], Any]
    size: tuple[int, int, int] = (9, 32, 32)
    attention: tuple[str, ...] = ("transformer.blocks.*.attn1",)
    keys: int = 1
    text: str = "none"
    to_stock: Latents = lambda latents: latents
    from_stock: Callable[[Tensor, tuple[int, ...]], Tensor] = lambda latents, shape: latents
    asked: Callable[[EditRequest], dict[str, Any]] = lambda request: {}
    unasked: tuple[str, ...] = ()
    during: Callable[[Any, EditRequest], AbstractContextManager[None]] = lambda *_: nullcontext()
    tolerance: float = 0.0
    why: str = ""
    name: str = ""
    packs: bool = False
    velocities: bool = True

    def refuses(self, config: Any) -> bool:
        """Whether a method makes no sense on it: it drops, or goes by velocities."""
        drops = config.drop and not self.packs
        if not isinstance(config, KVLockConfig):
            return bool(drops or not self.velocities)
        walks = config.source.inversion or config.guidance.zero_init_steps
        return bool(drops or walks and not self.velocities)

    @property
    def id(self) -> str:
        """For the tests' names."""
        return self.name or self.row

    def request(self, seed: int = 0, prompt: str = "a red cat", source: str = "a dog"):
        """A clip of noise, of which about a third is to be edited."""
        frames, height, width = self.size
        generator = torch.Generator().manual_seed(100 + seed)
        video = torch.randint(
            0, 256, (frames, height, width, 3), generator=generator, dtype=torch.uint8
        )
        mask = torch.zeros(frames, height, width, dtype=torch.bool)
        mask[:, : height // 2, seed * width // 4 : (seed + 2) * width // 4] = True
        return EditRequest(video, mask, prompt, source, seed=seed, fps=16)

    def stock(
        self, pipe: Any, request: EditRequest, noise: Tensor, config: KVLockConfig, **more: Any
    ) -> Tensor:
        """The latents that diffusers' own pipeline makes of this noise."""
        frames, height, width = self.size
        asked: dict[str, Any] = dict(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            height=height,
            width=width,
            num_frames=frames,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance.guidance_scale,
            latents=self.to_stock(noise),
            output_type="latent",
            max_sequence_length=TEXT_LENGTH,
        )
        asked = {name: value for name, value in asked.items() if name not in self.unasked}
        with self.during(pipe, request):
            latents = pipe(**asked | self.asked(request) | more).frames
        return self.from_stock(latents, tuple(noise.shape))


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe
