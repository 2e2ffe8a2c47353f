"""What the paper needs from the world, a model and its sampler, and where other methods plug in."""

# pyright: reportReturnType=false

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from kvlock.core.tap import Tap
from kvlock.core.types import Control, EditRequest, Measured, Prompt, Step

if TYPE_CHECKING:
    from kvlock.core.branches import Branches
    from kvlock.core.clips import Clips
    from kvlock.core.config import KVLockConfig
    from kvlock.core.variance import Window


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

    def sampler(self, num_inference_steps: int, multistep: bool) -> Sampler:
        """A fresh sampler; `multistep=False` asks for Euler steps."""

    def predict(
        self, latents: Tensor, timestep: Tensor, prompt: Prompt, condition: Tensor | None
    ) -> Tensor:
        """One forward of the DiT, float32 [B, C, F, H, W]; timestep [B]."""

    def tapped(
        self, tap: Tap, timestep: Tensor, control: bool = False
    ) -> AbstractContextManager[None]:
        """The tap attached to the self-attention of the expert active at `timestep`, 0-dim.

        With `control`, to a control stream's as well. RuntimeError if a layer was not run.
        """


class Forwards(Protocol):
    """The model's forwards in one step of an edit.

    `computed`: latents whose tokens are computed, bool [B, F, H, W]; None where all are.
    `predict`: the conditional's prediction and, in a guided step, the unconditional's, from latents
    and source [B, C, F, H, W] at the step's noise level.
    """

    @property
    def computed(self) -> Tensor | None: ...

    def predict(
        self, step: Step, latents: Tensor, source: Tensor, control: Control
    ) -> list[Tensor]: ...


class Injection(Protocol):
    """Plugs into the lock: alpha's factor at a step, 0 to 1; the source's weight inside the mask."""

    @property
    def foreground_ratio(self) -> float: ...

    def weight(self, step: int, config: "KVLockConfig") -> float: ...


class Calibration(Protocol):
    """Plugs into the signal: another measure of the predictions that gave the variance [B]."""

    def measure(
        self, variance: Tensor, window: "Window", patch_size: tuple[int, int, int]
    ) -> Measured: ...


class Projection(Protocol):
    """Plugs into the guidance: another combination of two clean predictions, with omega [B].

    kept: bool [B, F, H, W], the latents that it decides, or None for all. Gives the combination,
    and what the next step gets as `carried` (None at first).
    """

    def combine(
        self,
        cond: Tensor,
        uncond: Tensor,
        omega: Tensor,
        kept: Tensor | None,
        carried: Tensor | None,
    ) -> tuple[Tensor, Tensor]: ...


class Inversion(Protocol):
    """Plugs into the source: its latents at the start of each step and, last, clean; the edit's start."""

    def path(self, branches: "Branches") -> list[Tensor]: ...

    def start(self, latents: Tensor, clips: "Clips") -> Tensor: ...


class Dropping(Protocol):
    """Plugs into the plan: steps that do not compute the edit's background.

    ValueError where the rest of the config does not go with it.
    """

    def plan(self, steps: list[Step], config: "KVLockConfig") -> list[Step]: ...
