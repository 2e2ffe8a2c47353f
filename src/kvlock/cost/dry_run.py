"""What an edit will cost, from its own forwards on tensors without data: nothing is loaded or computed.

Every kind of step in the edit's plan runs once on torch's meta device, through the code that edits:
floating-point operations are counted as they pass, and memory as it is taken and given back.
"""

from collections import Counter as Counts
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kvlock.contract.types import Control
from kvlock.core.branches import Branches
from kvlock.core.clips import Clips
from kvlock.core.config import KVLockConfig
from kvlock.core.schedule import plan_steps
from kvlock.cost.counting import Counter
from kvlock.methods.edit import forwards_of
from kvlock.methods.execution import Execution
from kvlock.methods.flowedit import differences
from kvlock.methods.inversion import source_alone
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

    def deeper(self, shallower: "Cost", more: int) -> "Cost":
        """With so many more repeats of the layers, each as costly as the step from `shallower`."""

        def at(name: str) -> int:
            value = getattr(self, name)
            return value + more * (value - getattr(shallower, name))

        return Cost(self.branches, at("linear_flops"), at("attention_flops"), at("peak_bytes"))

    def times(self, count: int) -> "Cost":
        """The same so many times, one after the other."""
        return replace(
            self,
            branches=self.branches * count,
            linear_flops=self.linear_flops * count,
            attention_flops=self.attention_flops * count,
        )


@torch.no_grad()
def denoising_costs(
    backbone: Any,
    foreground: Tensor,
    config: MethodConfig,
    execution: Execution = Execution(),  # noqa: B008
    variants: int = 1,
) -> list[tuple[Cost, int]]:
    """Each kind of step of `variants` edits of one clip together, and how often it is made.

    On a meta backbone. foreground: latents bool [F, H, W], on the CPU. Where the variance sets
    alpha, the source counts in every step that it may be needed in.
    """
    if isinstance(config, FlowEditConfig):
        return _flowedit_costs(backbone, foreground, config, variants)
    execution = replace(execution, source_store="device")  # there is no data that could wait
    branches = _branches_without_data(backbone, foreground, config, variants)
    forwards = forwards_of(config, execution, foreground[None].expand(variants, -1, -1, -1))
    return [*_step_costs(branches, forwards(branches), config), *_inversion_costs(branches, config)]


def _step_costs(branches: Branches, forwards: Any, config: KVLockConfig) -> list[tuple[Cost, int]]:
    latents, costs = branches.clips.start, {}
    control = Control(latents.new_ones(len(latents)), latents.new_ones(len(latents)))
    steps = plan_steps(config, branches.sampler.sigmas, branches.sampler.switch)
    with Counter() as counter:
        for step in steps:
            if step.kind not in costs:
                counter.reset()  # what earlier steps hold stays in memory
                forwards.predict(step, latents, latents, control)
                count = len(latents) * (1 + step.guided) + step.source
                costs[step.kind] = Cost.of(counter, count)
    often = Counts(step.kind for step in steps)
    return [(cost, often[kind]) for kind, cost in costs.items()]


def _inversion_costs(branches: Branches, config: KVLockConfig) -> list[tuple[Cost, int]]:
    if config.source.inversion is None:
        return []
    latents, timestep = branches.clips.start, branches.sampler.timestep(0)
    with Counter() as counter:
        source_alone(branches, latents, timestep)
    return [(Cost.of(counter, 1), config.num_inference_steps + 1)]


def _flowedit_costs(
    backbone: Any, foreground: Tensor, config: FlowEditConfig, variants: int
) -> list[tuple[Cost, int]]:
    """Source and target, each guided or not; one edit after the other."""
    clips, count = (
        _clips_without_data(backbone, foreground, 1),
        4 if config.guidance_scale > 1 else 2,
    )
    predict = differences(backbone, clips, config, foreground[None])
    with Counter() as counter:
        predict(clips.source, clips.source, torch.zeros(()))
    steps = config.num_inference_steps - config.first_step
    return [(Cost.of(counter, count), steps * config.num_noises * variants)]


def total(costs: list[tuple[Cost, int]]) -> Cost:
    """Of all steps."""
    return sum((cost.times(count) for cost, count in costs), Cost(0, 0, 0, 0))


def _branches_without_data(
    backbone: Any, foreground: Tensor, config: KVLockConfig, variants: int
) -> Branches:
    clips = _clips_without_data(backbone, foreground, variants)
    sampler = backbone.sampler(config.num_inference_steps, False, clips.latent_size)
    return Branches(backbone, sampler, clips, config)


def _clips_without_data(backbone: Any, foreground: Tensor, variants: int) -> Clips:
    latents, prompt, condition = backbone.random_inputs(variants, tuple(foreground.shape))
    nowhere = foreground[None].expand(variants, -1, -1, -1).to(latents.device)
    return Clips(
        source_prompt=prompt,
        prompt=prompt,
        negative_prompt=prompt,
        source=latents,
        noise=latents,
        start=latents,
        foreground=nowhere,
        condition=condition,
        firsts=[0],
        source_of=[0] * variants,
        seeds=[0] * variants,
    )
