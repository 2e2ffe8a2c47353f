"""What an edit will cost, from its own forwards on tensors without data: nothing is loaded or computed.

Every kind of step in the edit's plan runs once on torch's meta device, through the code that edits:
floating-point operations are counted as they pass, and memory as it is taken and given back.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kvlock.core.branches import Branches
from kvlock.core.clips import Clips
from kvlock.core.config import KVLockConfig
from kvlock.core.schedule import plan_steps
from kvlock.core.types import Control
from kvlock.cost.counting import Counter
from kvlock.methods.edit import forwards_of
from kvlock.methods.execution import Execution
from kvlock.methods.options import FlowEditConfig, MethodConfig


@dataclass(frozen=True)
class Cost:
    """Branches through the model, operations (a multiplication and an addition are two), and the
    most bytes beyond the weights."""

    branches: int
    linear_flops: int
    attention_flops: int
    peak_bytes: int

    @staticmethod
    def of(counter: Counter, branches: int) -> "Cost":
        """What was counted, for so many branches."""
        return Cost(branches, counter.linear_flops, counter.attention_flops, counter.peak_bytes)

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.branches + other.branches,
            self.linear_flops + other.linear_flops,
            self.attention_flops + other.attention_flops,
            max(self.peak_bytes, other.peak_bytes),
        )

    def times(self, count: int) -> "Cost":
        """The same so many times, one after the other."""
        return replace(
            self,
            branches=self.branches * count,
            linear_flops=self.linear_flops * count,
            attention_flops=self.attention_flops * count,
        )


@torch.no_grad()
def denoising_cost(
    backbone: Any,
    foreground: Tensor,
    config: MethodConfig,
    execution: Execution = Execution(),  # noqa: B008
    variants: int = 1,
) -> Cost:
    """All steps of `variants` edits of one clip together, on a meta backbone.

    foreground: latents bool [F, H, W], on the CPU. Where the variance sets alpha, the source counts
    in every step that it may be needed in.
    """
    if isinstance(config, FlowEditConfig):
        return _flowedit_cost(backbone, foreground, config).times(variants)
    branches = _branches_without_data(backbone, foreground, config, variants)
    if execution.source_store == "host" and config.drop and config.drop.refresh_steps(config) > 1:
        fresh = replace(config, drop=replace(config.drop, source_refresh=1))
        each_step = denoising_cost(backbone, foreground, fresh, _on_device(execution), variants)
        held = denoising_cost(backbone, foreground, config, _on_device(execution), variants)
        return replace(held, peak_bytes=each_step.peak_bytes)
    forwards = forwards_of(config, execution, foreground[None].expand(variants, -1, -1, -1))
    return _counted(branches, forwards(branches), config) + _inversion_cost(branches, config)


def _on_device(execution: Execution) -> Execution:
    return replace(execution, source_store="device")


def _counted(branches: Branches, forwards: Any, config: KVLockConfig) -> Cost:
    latents, costs, total = branches.clips.start, {}, Cost(0, 0, 0, 0)
    control = Control(latents.new_ones(len(latents)), latents.new_ones(len(latents)))
    with Counter() as counter:
        for step in plan_steps(config, branches.sampler.sigmas):
            if step.kind not in costs:
                counter.reset()  # what earlier steps hold stays in memory
                forwards.predict(step, latents, latents, control)
                count = len(latents) * (1 + step.guided) + step.source
                costs[step.kind] = Cost.of(counter, count)
            total += costs[step.kind]
    return total


def _inversion_cost(branches: Branches, config: KVLockConfig) -> Cost:
    if config.source.inversion is None:
        return Cost(0, 0, 0, 0)
    latents, timestep = branches.clips.start, branches.sampler.timestep(0)
    with Counter() as counter:
        branches.source_alone(latents, timestep)
    return Cost.of(counter, 1).times(config.num_inference_steps + 1)


def _flowedit_cost(backbone: Any, foreground: Tensor, config: FlowEditConfig) -> Cost:
    """Source and target, each guided or not, in one batch."""
    count = 4 if config.guidance_scale > 1 else 2
    latents, prompt, condition = backbone.random_inputs(count, tuple(foreground.shape))
    times = torch.zeros(count, device=latents.device)
    with Counter() as counter:
        backbone.predict(latents, times, prompt, condition)
    steps = config.num_inference_steps - config.first_step
    return Cost.of(counter, count).times(steps * config.num_noises)


def _branches_without_data(
    backbone: Any, foreground: Tensor, config: KVLockConfig, variants: int
) -> Branches:
    latents, prompt, condition = backbone.random_inputs(variants, tuple(foreground.shape))
    nowhere = foreground[None].expand(variants, -1, -1, -1).to(latents.device)
    prompts, sources = (prompt, prompt, prompt), (latents, latents, latents)
    clips = Clips(*prompts, *sources, nowhere, condition, [0], [0] * variants)
    sampler = backbone.sampler(config.num_inference_steps, multistep=False)
    return Branches(backbone, sampler, clips, config)
