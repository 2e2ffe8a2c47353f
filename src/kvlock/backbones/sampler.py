"""Flow-matching schedulers of diffusers behind the core's Sampler."""

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SchedulerMixin
from torch import Tensor

SHIFT_FIELDS = ("flow_shift", "shift")


def check_flow_matching(scheduler: SchedulerMixin) -> None:
    """Raise ValueError unless the scheduler is of the flow-matching kind, on which every equation here rests."""
    config = scheduler.config
    flow = isinstance(scheduler, FlowMatchEulerDiscreteScheduler) or (
        config.get("prediction_type") == "flow_prediction" and config.get("use_flow_sigmas")
    )
    if not flow:
        raise ValueError(
            f"scheduler {type(scheduler).__name__} with prediction_type={config.get('prediction_type')!r} is not flow "
            "matching; expected FlowMatchEulerDiscreteScheduler, or one with prediction_type='flow_prediction' and "
            "use_flow_sigmas=true in scheduler_config.json"
        )


def with_flow_shift(scheduler: SchedulerMixin, flow_shift: float | None) -> SchedulerMixin:
    """The scheduler with another timestep shift, whatever the clip's size; unchanged for None."""
    if flow_shift is None:
        return scheduler
    if not any(name in scheduler.config for name in SHIFT_FIELDS):
        raise ValueError(
            f"flow_shift is {flow_shift}, but {type(scheduler).__name__} has no timestep shift; "
            "leave it out"
        )
    changes: dict[str, Any] = {next(n for n in SHIFT_FIELDS if n in scheduler.config): flow_shift}
    if scheduler.config.get("use_dynamic_shifting"):
        changes["use_dynamic_shifting"] = False
    return type(scheduler).from_config(scheduler.config, **changes)


class FlowSampler:
    """One edit's walk from noise to clean: `sigmas[k]` is the level at the start of step k, `sigmas[-1]` is 0.

    With `multistep` the scheduler's own `step` is used; otherwise Euler steps on the scheduler's own levels.
    """

    def __init__(
        self,
        scheduler: SchedulerMixin,
        num_inference_steps: int,
        multistep: bool,
        boundary: float = 0.0,
        levels: dict[str, Any] | None = None,
    ):
        """boundary: the timestep below which a second expert takes over.

        levels: what the family's pipeline gives to `set_timesteps` where that is not the count.
        Raises ValueError for a scheduler that is not flow matching.
        """
        check_flow_matching(scheduler)
        self._scheduler = type(scheduler).from_config(scheduler.config)
        self._scheduler.set_timesteps(**levels or dict(num_inference_steps=num_inference_steps))
        self._multistep = multistep
        self.sigmas = self._scheduler.sigmas.tolist()
        times = self._scheduler.timesteps.tolist()
        self.switch = next((k for k, time in enumerate(times) if time < boundary), len(times))

    def add_noise(self, clean: Tensor, noise: Tensor, step: int) -> Tensor:
        """(1 - sigma) clean + sigma noise."""
        sigma = self.sigmas[step]
        return (1 - sigma) * clean + sigma * noise

    def denoised(self, latents: Tensor, prediction: Tensor, step: int) -> Tensor:
        """z - sigma v."""
        return latents - self.sigmas[step] * prediction

    def prediction_for(self, latents: Tensor, denoised: Tensor, step: int) -> Tensor:
        """(z - x0) / sigma."""
        return (latents - denoised) / self.sigmas[step]

    def step(self, latents: Tensor, prediction: Tensor, step: int) -> Tensor:
        """z moved to the next level."""
        if not self._multistep:
            return latents + (self.sigmas[step + 1] - self.sigmas[step]) * prediction
        if self._scheduler.step_index is None:
            self._scheduler.set_begin_index(step)
        return self._scheduler.step(
            prediction, self._scheduler.timesteps[step], latents, return_dict=False
        )[0]

    def timestep(self, step: int) -> torch.Tensor:
        """The model's timestep, 0-dim; after the last step 0, clean."""
        timesteps = self._scheduler.timesteps
        return timesteps[step] if step < len(timesteps) else torch.zeros_like(timesteps[0])
