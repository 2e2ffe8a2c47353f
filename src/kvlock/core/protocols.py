"""What the paper needs from the world: a model and its sampler."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class AttentionSite:
    """One self-attention layer of a video DiT: a diffusers attention module and how its tokens lie.

    `key_axis` is the token axis of what `norm_k` gives. Values are always [B, S, inner].
    `text` says where text tokens stand beside the video's in keys and values, if they do.
    `control` marks a control stream's layer: alpha leaves it alone, it matters where background is dropped.
    `rotate` (tokens [B, S, inner], cos, sin) is the model's rotary embedding, which packed forwards need.
    """

    name: str
    module: Any
    key_axis: int = 1
    text: Literal["none", "before", "after"] = "none"
    control: bool = False
    rotate: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None

    def video_tokens(self, count: int) -> slice:
        """The video's tokens within the sequence."""
        return slice(-count, None) if self.text == "before" else slice(0, count)


@dataclass(frozen=True)
class TokenRow:
    """One row of a packed forward: latents [1, C, F, H, W], prompt embeddings [1, L, D], condition [1, ...] or None.

    tokens: int64 [n], ascending, which of the latents' tokens go through the model.
    """

    latents: Tensor
    prompt_embeds: Tensor
    condition: Any
    tokens: Tensor


class Flow(Protocol):
    """What a packed forward tells the outside."""

    def enter(self, row: int, rope: tuple[Tensor, Tensor]) -> None:
        """Row number `row` is about to go through a block; its tokens' cos and sin are the flow's to apply."""
        ...

    def leave(self) -> None:
        """All rows have gone through the block."""
        ...


class Sampler(Protocol):
    """The model's scheduler over one edit; multistep solvers carry state, so each edit takes a fresh one."""

    sigmas: Sequence[float]

    def add_noise(self, clean: Tensor, noise: Tensor, step: int) -> Tensor:
        """`clean` noised to the level at the start of `step`."""
        ...

    def denoised(self, latents: Tensor, prediction: Tensor, step: int) -> Tensor:
        """The clean latents that `prediction` at `step` implies."""
        ...

    def step(self, latents: Tensor, prediction: Tensor, step: int) -> Tensor:
        """`latents` moved from the level of `step` to that of the next."""
        ...

    def timestep(self, step: int) -> Tensor:
        """What the model is told of `step`, 0-dim; 0 for the level after the last step."""
        ...


class Backbone(Protocol):
    """A video DiT with its VAE and text encoder. Latents are float32 [B, C, F, H, W] on `device`, normalised."""

    vae_stride: tuple[int, int, int]
    patch_size: tuple[int, int, int]
    max_tokens_per_axis: int
    needs_anchor: bool

    @property
    def device(self) -> torch.device:
        """Where computation happens."""
        ...

    def encode_video(self, video: Tensor) -> Tensor:
        """uint8 [B, F, H, W, 3] -> latents."""
        ...

    def decode_video(self, latents: Tensor) -> Tensor:
        """latents -> uint8 [B, F, H, W, 3]."""
        ...

    def encode_prompt(self, prompts: list[str]) -> Tensor:
        """[B, L, D]."""
        ...

    def condition(self, video: Tensor, mask: Tensor) -> Any:
        """What else the model is told: uint8 [B, F, H, W, 3], bool [B, F, H, W] -> [B, ...] tensor, or None."""
        ...

    def sampler(self, num_inference_steps: int, multistep: bool) -> Sampler:
        """A fresh sampler; `multistep=False` asks for Euler steps."""
        ...

    def predict(self, latents: Tensor, timestep: Tensor, prompt_embeds: Tensor, condition: Any) -> Tensor:
        """One forward of the DiT, float32 [B, C, F, H, W]."""
        ...

    def predict_packed(self, rows: Sequence[TokenRow], timestep: Tensor, flow: Flow) -> list[Tensor]:
        """One forward of rows of any length, block by block, row after row: float32 [1, C, F, H, W] each.

        timestep: 0-dim, of all rows. What belongs to tokens that did not go through is zero.
        """
        ...

    def attention_sites(self) -> list[AttentionSite]:
        """The self-attention layers to lock, a control stream's marked as such."""
        ...
