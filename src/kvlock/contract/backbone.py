"""What the paper needs from the world: a model family and its sampler."""

# pyright: reportReturnType=false

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from kvlock.contract.tap import Tap
from kvlock.contract.types import EditRequest, Prompt

Size = tuple[int, int, int]  # latent frames, height, width


@dataclass(frozen=True)
class PackedBranch:
    """One branch of a packed forward: latents [1, C, F, H, W], its prompt, condition [1, ...] or None.

    tokens: int64 [n], ascending, which of the latents' tokens go through the model.
    """

    latents: Tensor
    prompt: Prompt
    condition: Tensor | None
    tokens: Tensor


class Flow(Protocol):
    """What a packed forward reports of its way through the blocks."""

    def enter(self, branch: int, rope: tuple[Tensor, Tensor]) -> None:
        """This branch goes through a block now; its tokens' cos and sin are the flow's to apply."""

    def leave(self) -> None:
        """All branches have gone through the block."""


class Sampler(Protocol):
    """The model's scheduler over one edit; multistep solvers carry state, so each edit has its own.

    What a prediction means (velocity, v, noise) is known here alone.
    """

    sigmas: Sequence[float]
    switch: int  # the first step of a second expert; the number of steps where there is none

    def add_noise(self, clean: Tensor, noise: Tensor, step: int) -> Tensor:
        """`clean` noised to the level at the start of `step`."""

    def denoised(self, latents: Tensor, prediction: Tensor, step: int) -> Tensor:
        """The clean latents that `prediction` at `step` implies."""

    def prediction_for(self, latents: Tensor, denoised: Tensor, step: int) -> Tensor:
        """The prediction at `step` that implies the clean latents `denoised`."""

    def step(self, latents: Tensor, prediction: Tensor, step: int) -> Tensor:
        """`latents` moved from the level of `step` to that of the next."""

    def timestep(self, step: int) -> Tensor:
        """The model's timestep, 0-dim, on the CPU; 0 for the level after the last step."""


class Backbone(Protocol):
    """A video DiT with its VAE and text encoder. Latents: float32 [B, C, F, H, W], normalised.

    A backbone may also have `predict_packed(branches, timestep, flow)`: one forward of
    `PackedBranch`es of any length, block by block, branch after branch, that gives
    float32 [1, C, F, H, W] each, zero where no token went through. Without it, sequential locks
    keep one step's keys and values, and no background can be dropped.
    """

    vae_stride: tuple[int, int, int]
    patch_size: tuple[int, int, int]
    max_tokens_per_axis: int

    @property
    def flow_matching(self) -> bool:
        """Whether predictions are velocities, noise minus clean, along straight lines."""
        ...

    @property
    def embedded_guidance(self) -> bool:
        """Whether guidance is a number that the model reads, without an unconditional branch."""
        ...

    @property
    def needs_anchor(self) -> bool:
        """Whether nothing but the lock ties the edit to the source."""
        ...

    @property
    def device(self) -> torch.device:
        """Where computation happens."""
        ...

    def encode_video(self, video: Tensor) -> Tensor:
        """uint8 [B, F, H, W, 3] -> latents."""

    def decode_video(self, latents: Tensor) -> Tensor:
        """latents -> uint8 [B, F, H, W, 3]."""

    def encode_prompt(self, prompts: list[str]) -> Prompt:
        """One prompt a clip."""

    def condition(self, requests: Sequence[EditRequest]) -> Tensor | None:
        """What the model sees besides latents and prompt, [B, ...]."""

    def sampler(
        self, num_inference_steps: int, multistep: bool, latent_size: Size | None = None
    ) -> Sampler:
        """A fresh sampler; `multistep=False` asks for single steps, Euler's or DDIM's.

        latent_size: of the clips, on which the levels of some families hang.
        """

    def predict(
        self, latents: Tensor, timestep: Tensor, prompt: Prompt, condition: Tensor | None
    ) -> Tensor:
        """One forward of the DiT, float32 [B, C, F, H, W]; timestep [B], all equal, on the CPU."""

    def tapped(
        self, tap: Tap, timestep: Tensor, control: bool = False
    ) -> AbstractContextManager[None]:
        """The tap attached to the self-attention of the expert active at `timestep`, 0-dim.

        With `control`, to a control stream's as well. RuntimeError if a layer was not run.
        """
