"""v-prediction on a diffusion schedule behind the core's Sampler: DDIM, as CogVideoX was trained.

Latents are sqrt(a) clean + sqrt(1 - a) noise, where a is the schedule's cumulative alpha, and the
model predicts v = sqrt(a) noise - sqrt(1 - a) clean (arXiv 2202.00512).
"""

import torch
from diffusers import CogVideoXDDIMScheduler, SchedulerMixin
from torch import Tensor


def check_v_prediction(scheduler: SchedulerMixin) -> None:
    """Raise ValueError unless the scheduler is a diffusion schedule of a model that predicts v."""
    config = scheduler.config
    if config.get("prediction_type") != "v_prediction" or not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(
            f"scheduler {type(scheduler).__name__} with prediction_type="
            f"{config.get('prediction_type')!r} is no diffusion schedule of v-prediction; expected "
            "CogVideoXDDIMScheduler with prediction_type='v_prediction' in scheduler_config.json"
        )


class DiffusionSampler:
    """One edit's walk from noise to clean; `sigmas[k]` = sqrt(1 - a) at the start of step k, last 0.

    DDIM steps: with `multistep` the scheduler's own, otherwise from level to level. A scheduler of
    the same schedule whose steps draw noise, such as DPM's, gives its levels alone.
    """

    def __init__(self, scheduler: SchedulerMixin, num_inference_steps: int, multistep: bool):
        """Raises ValueError for a scheduler of another kind."""
        check_v_prediction(scheduler)
        self._scheduler = CogVideoXDDIMScheduler.from_config(scheduler.config)
        self._scheduler.set_timesteps(num_inference_steps)
        self._multistep = multistep
        alphas = self._scheduler.alphas_cumprod.double()[self._scheduler.timesteps]
        self._signal = [*alphas.sqrt().tolist(), 1.0]
        self.sigmas = [*(1 - alphas).sqrt().tolist(), 0.0]
        self.switch = num_inference_steps

    def add_noise(self, clean: Tensor, noise: Tensor, step: int) -> Tensor:
        """sqrt(a) clean + sqrt(1 - a) noise."""
        return self._signal[step] * clean + self.sigmas[step] * noise

    def denoised(self, latents: Tensor, prediction: Tensor, step: int) -> Tensor:
        """sqrt(a) z - sqrt(1 - a) v."""
        return self._signal[step] * latents - self.sigmas[step] * prediction

    def prediction_for(self, latents: Tensor, denoised: Tensor, step: int) -> Tensor:
        """(sqrt(a) z - x0) / sqrt(1 - a)."""
        return (self._signal[step] * latents - denoised) / self.sigmas[step]

    def step(self, latents: Tensor, prediction: Tensor, step: int) -> Tensor:
        """z moved to the next level along the noise that the prediction implies."""
        if self._multistep:
            time = self._scheduler.timesteps[step]
            return self._scheduler.step(prediction, time, latents, return_dict=False)[0]
        kept = self.sigmas[step + 1] / self.sigmas[step]
        gained = self._signal[step + 1] - self._signal[step] * kept
        return kept * latents + gained * self.denoised(latents, prediction, step)

    def timestep(self, step: int) -> torch.Tensor:
        """The model's timestep, 0-dim; after the last step 0, clean."""
        timesteps = self._scheduler.timesteps
        return timesteps[step] if step < len(timesteps) else torch.zeros_like(timesteps[0])
