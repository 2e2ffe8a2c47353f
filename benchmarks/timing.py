"""One model with random weights, whose steps are timed in every mode; nothing is encoded."""

import statistics
import time
from typing import Any

import torch
from torch import Tensor

from kvlock.backbones.families import family_named
from kvlock.contract.types import EditRequest, EditResult, Prompt
from kvlock.core.branches import Branches
from kvlock.core.config import KVLockConfig
from kvlock.core.edit import edit_clips
from kvlock.core.plugs import Forwards
from kvlock.core.schedule import plan_steps
from kvlock.cost.dry_run import Cost, denoising_costs, total
from kvlock.cost.estimate import centred_mask
from kvlock.cost.rates import Rates, attention_rate, matmul_rate, synchronise
from kvlock.cost.skeleton import FLOW_MATCHING, Configs, assembled, skeleton
from kvlock.methods.edit import forwards_of
from modes import MODES, Mode, few_steps

Kind = tuple[bool, bool, bool]
MIDDLE: dict[str, Any] = dict(
    num_attention_heads=6,
    attention_head_dim=64,
    ffn_dim=1536,
    num_layers=2,
    vace_layers=[0],
    text_dim=64,
)
FULL_SIZE = (81, 480, 832)
SIZES = {"middle": (25, 480, 640), "shapes": (9, 96, 96), "shapes-t2v": (9, 96, 96)}
STEPS = 50


class Encoded:
    """A backbone whose clip, prompts and condition are random, so that the steps alone take time.

    Latents are not decoded: an edit's `video` is its clean latents [C, F, H, W].
    """

    def __init__(self, backbone: Any, latent_size: tuple[int, int, int]):
        self.backbone, self._size = backbone, latent_size

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backbone, name)

    def _random(self, clips: int) -> tuple[Tensor, Prompt, Tensor | None]:
        """The same in every edit, whatever was drawn before it."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.backbone.random_inputs(clips, self._size)

    def encode_video(self, video: Tensor) -> Tensor:
        """Latents of the model's size."""
        return self._random(len(video))[0]

    def encode_prompt(self, prompts: list[str]) -> Prompt:
        """As many text tokens as the model takes, in its dtype, which a text encoder has too."""
        dtype = self.backbone.pipe.transformer.dtype
        return Prompt(tuple(part.to(dtype) for part in self._random(len(prompts))[1].parts))

    def condition(self, requests: list[EditRequest]) -> Tensor | None:
        """What a VACE model sees beside."""
        return self._random(len(requests))[2]

    def decode_video(self, latents: Tensor) -> Tensor:
        """As they are."""
        return latents


def backbones(model: str, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    """The model with random weights, and the same without any."""
    if model == "middle":
        family = family_named("wan2.1-vace")
        there, meta = (
            assembled(family, Configs(MIDDLE, {}, FLOW_MATCHING, {}), name, dtype)
            for name in (str(device), "meta")
        )
        return there, meta
    return skeleton(model, str(device), dtype), skeleton(model, "meta", dtype)


class Run:
    """One model on one device, edited in every mode."""

    def __init__(self, model: str, device: torch.device, dtype: torch.dtype, compiled: bool):
        self.model, self.device = model, device
        real, self.meta = backbones(model, device, dtype)
        if compiled:
            real.pipe.transformer.compile_repeated_blocks(dynamic=True)
        stride, frames, height, width = real.vae_stride, *SIZES.get(model, FULL_SIZE)
        self.video_size = (frames, height, width)
        self.latent_size = ((frames - 1) // stride[0] + 1, height // stride[1], width // stride[2])
        self.stride, self.patch = stride, real.patch_size
        self.tokens = torch.Size(self.latent_size).numel() // torch.Size(self.patch).numel()
        self.backbone: Any = Encoded(real, self.latent_size)
        architecture = real.pipe.transformer.config
        heads, head_dim = architecture.num_attention_heads, architecture.attention_head_dim
        self.rates = Rates(
            matmul_rate(device, dtype, self.tokens, heads * head_dim),
            attention_rate(device, dtype, self.tokens, heads, head_dim),
        )

    def cost(self, mode: Mode, share: float, steps: int) -> Cost:
        """What all steps take, counted."""
        mask = centred_mask(self.latent_size, self.patch, share)
        config = mode.steps(steps)
        return total(denoising_costs(self.meta, mask, config, mode.execution, mode.variants))

    def floor(self, cost: Cost) -> float:
        """Seconds, at the rates that a large product and a large attention reach here."""
        return self.rates.seconds(cost)

    def seconds(self, mode: Mode, share: float, steps: int, whole: bool) -> float:
        """What all steps take; without `whole`, from a few of each kind."""
        config = mode.steps(steps)
        if whole:
            return sum(self.step_seconds(config, mode, share))
        by_kind = self.seconds_by_kind(mode, share, steps)
        return sum(by_kind[kind] for kind in self.kinds(config))

    def seconds_by_kind(self, mode: Mode, share: float, steps: int = STEPS) -> dict[Kind, float]:
        """The median of each kind of step, from a few of each."""
        few = few_steps(mode.steps(steps))
        took = self.step_seconds(few, mode, share)
        by_kind: dict[Kind, list[float]] = {}
        for kind, seconds in list(zip(self.kinds(few), took))[1:]:  # the first warms up
            by_kind.setdefault(kind, []).append(seconds)
        return {kind: statistics.median(seconds) for kind, seconds in by_kind.items()}

    def kinds(self, config: KVLockConfig) -> list[Kind]:
        """Of every step."""
        sigmas = self.backbone.sampler(config.num_inference_steps, multistep=False).sigmas
        return [step.kind for step in plan_steps(config, sigmas)]

    def step_seconds(self, config: KVLockConfig, mode: Mode, share: float) -> list[float]:
        """Of each step; what a mode prepares once belongs to the first."""
        marks: list[float] = []
        self.edit(config, mode, share, marks)
        return [after - before for before, after in zip(marks, marks[1:])]

    def edit(
        self, config: KVLockConfig, mode: Mode, share: float, marks: list[float] | None = None
    ) -> list[EditResult]:
        """Make the edit; `marks` gets the time when the steps begin, and after each."""

        def mark(_: object) -> None:
            synchronise(self.device)
            assert marks is not None
            marks.append(time.perf_counter())

        make = forwards_of(config, mode.execution)

        def begin(branches: Branches) -> Forwards:
            if marks is not None:
                mark(None)  # all is encoded by now
            return make(branches)

        on_step = None if marks is None else mark
        return edit_clips(self.backbone, self._requests(mode, share), config, on_step, begin)

    def _requests(self, mode: Mode, share: float) -> list[EditRequest]:
        latents = centred_mask(self.latent_size, self.patch, share)
        pixels = latents.repeat_interleave(self.stride[1], 1).repeat_interleave(self.stride[2], 2)
        mask = pixels[:1].expand(self.video_size[0], -1, -1).clone()
        video = torch.zeros(*self.video_size, 3, dtype=torch.uint8)
        seeds = range(mode.variants)
        return [EditRequest(video, mask, "x", seed=i, background_seed=0) for i in seeds]

    def peak(self, mode: Mode, share: float, cost: Cost) -> int:
        """Bytes beyond the weights: measured on a GPU, elsewhere counted."""
        if self.device.type != "cuda":
            return cost.peak_bytes
        weights = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self.edit(few_steps(mode.steps(STEPS)), mode, share)
        return torch.cuda.max_memory_allocated(self.device) - weights


def run_of(model: str, compiled: bool = False) -> Run:
    """On the GPU in bfloat16, or on the CPU in float32."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    return Run(model, device, dtype, compiled)


def named(mode: str) -> Mode:
    """The mode of that name; raises ValueError for another."""
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is unknown; expected one of {'; '.join(MODES)}")
    return MODES[mode]
