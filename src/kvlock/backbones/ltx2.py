"""LTX-2 (2.0, 2.3) on diffusers' own LTX2Pipeline: a video and an audio stream in one transformer.

The model hears silence, noised to the same level as the video, in every branch: an edit changes
pictures, and the file keeps its own sound. So what the audio stream predicts is not used. Guidance
is classifier-free alone; the pipeline's further terms (STG, modality isolation, rescaling) are
not there.
"""

import math
from collections.abc import Sequence

import torch
from diffusers.pipelines.ltx2.utils import DISTILLED_SIGMA_VALUES
from torch import Tensor

from kvlock.backbones.ltx import LTXBackbone
from kvlock.backbones.sampler import FlowSampler
from kvlock.contract.backbone import Size
from kvlock.contract.types import EditRequest, Prompt

RATE = 24.0  # frames a second, the pipeline's own where the clip's is not known
SILENCE = math.log(1e-5)  # the floor of LTX-2's mel spectrograms


class LTX2Backbone(LTXBackbone):
    """A loaded LTX2Pipeline as the core's Backbone; its `attn1` is the video's self-attention."""

    def encode_one(self, prompt: str) -> tuple[Tensor, ...]:
        """Words for the video and for the audio, and which of them are words, [1, L, ...]."""
        words, which = super().encode_one(prompt)
        return self.pipe.connectors(words, which, padding_side=self.pipe.tokenizer.padding_side)

    def condition(self, requests: Sequence[EditRequest]) -> Tensor:
        """Silence, noise and the rate of each clip, [B, L, 2 D + 1], on the CPU.

        Raises ValueError for clips of different rates.
        """
        rates = {request.fps or RATE for request in requests}
        if len(rates) > 1:
            raise ValueError(
                f"clips edited together have the rates {sorted(rates)}; expected one rate"
            )
        self.placement.need("audio_vae")
        rate = rates.pop()
        silence = self._silence(len(requests[0].video), rate)
        seeds = (r.seed if r.background_seed is None else r.background_seed for r in requests)
        drawn = (torch.Generator().manual_seed(seed) for seed in seeds)
        noises = [torch.randn(silence.shape, generator=generator) for generator in drawn]
        rates_beside = silence.new_full((len(silence), 1), rate)
        return torch.stack([torch.cat([silence, n, rates_beside], dim=1) for n in noises])

    def _silence(self, frames: int, rate: float) -> Tensor:
        """As normalised audio latents, [L, D], on the CPU."""
        vae, pipe = self.pipe.audio_vae, self.pipe
        stride = vae.temporal_compression_ratio
        a_second = pipe.audio_sampling_rate / pipe.audio_hop_length / stride
        length = round(frames / rate * a_second)
        size = 1, vae.config.in_channels, length * stride, vae.config.mel_bins
        mel = torch.full(size, SILENCE, device=self.device, dtype=vae.dtype)
        packed = pipe._pack_audio_latents(vae.encode(mel).latent_dist.mode()[:, :, :length])
        mean, std = vae.latents_mean, vae.latents_std
        return pipe._normalize_audio_latents(packed, mean, std)[0].float().cpu()

    def sampler(
        self, num_inference_steps: int, multistep: bool, latent_size: Size | None = None
    ) -> FlowSampler:
        """As LTX; a scheduler without dynamic shift is a distilled model's, 8 steps of its own."""
        dynamic = self.pipe.scheduler.config.get("use_dynamic_shifting")
        if dynamic or num_inference_steps != len(DISTILLED_SIGMA_VALUES):
            return super().sampler(num_inference_steps, multistep, latent_size)
        levels = {"sigmas": DISTILLED_SIGMA_VALUES}
        return FlowSampler(self.pipe.scheduler, num_inference_steps, multistep, levels=levels)

    def predict(
        self, latents: Tensor, timestep: Tensor, prompt: Prompt, condition: Tensor | None
    ) -> Tensor:
        """The video's velocity, float32 [B, C, F, H, W]."""
        assert condition is not None
        transformer, device, pipe = self.active(timestep), latents.device, self.pipe
        dtype, count = transformer.dtype, len(latents)
        frames, height, width = latents.shape[2:]
        silence, noise = condition[..., :-1].chunk(2, dim=-1)
        level = float(timestep[0]) / pipe.scheduler.config.num_train_timesteps
        audio = (1 - level) * silence + level * noise
        rate, times = float(condition[0, 0, -1]), timestep.to(device, non_blocking=True)
        words, audio_words, which = prompt.parts
        packed = transformer(
            hidden_states=pipe._pack_latents(latents, 1, 1).to(dtype),
            audio_hidden_states=audio.to(device, dtype, non_blocking=True),
            encoder_hidden_states=words.to(dtype),
            audio_encoder_hidden_states=audio_words.to(dtype),
            timestep=times,
            sigma=times,
            encoder_attention_mask=which,
            audio_encoder_attention_mask=which,
            num_frames=frames,
            height=height,
            width=width,
            fps=rate,
            audio_num_frames=audio.shape[1],
            video_coords=transformer.rope.prepare_video_coords(
                count, frames, height, width, device, fps=rate
            ),
            return_dict=False,
        )[0].float()
        return pipe._unpack_latents(packed, frames, height, width, 1, 1)

    def random_inputs(
        self, clips: int, latent_size: tuple[int, int, int]
    ) -> tuple[Tensor, Prompt, Tensor | None]:
        """Latents, a prompt and a condition of random numbers, to count and to time forwards with."""
        config, length = self.pipe.transformer.config, self.max_sequence_length
        latents = torch.randn(clips, config.in_channels, *latent_size, device=self.device)
        sizes = config.cross_attention_dim, config.audio_cross_attention_dim
        if config.use_prompt_embeddings:
            sizes = (config.caption_channels,) * 2
        words = [torch.randn(clips, length, size, device=self.device) for size in sizes]
        which = torch.ones(clips, length, device=self.device)
        seconds = (latent_size[0] - 1) * self.vae_stride[0] / RATE
        audio = round(seconds * self.pipe.audio_sampling_rate / self.pipe.audio_hop_length / 4) + 1
        condition = torch.full((clips, audio, 2 * config.audio_in_channels + 1), RATE)
        return latents, Prompt((*words, which)), condition
