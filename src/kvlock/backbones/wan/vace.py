"""Wan VACE, masked video-to-video, on diffusers' own WanVACEPipeline: 2.1, and 2.2 with two experts.

Control = latents of the clip with the mask greyed out + latents of what is inside (grey) + the
unshuffled mask.
"""

from collections.abc import Sequence

import torch
from diffusers import WanVACEPipeline
from torch import Tensor

from kvlock.backbones.adapter import to_pixels
from kvlock.backbones.placement import Placement
from kvlock.backbones.wan.t2v import WanBackbone
from kvlock.contract.types import EditRequest, Prompt


class WanVACEBackbone(WanBackbone):
    """A loaded WanVACEPipeline as the core's Backbone: as text-to-video, and shown the control."""

    def __init__(
        self,
        pipe: WanVACEPipeline,
        max_sequence_length: int | None = None,
        placement: Placement | None = None,
    ):
        # The pipeline derives this from the number of downsampling layers, wrong for VAEs that
        # unshuffle pixels first.
        pipe.vae_scale_factor_spatial = pipe.vae.config.scale_factor_spatial
        super().__init__(pipe, max_sequence_length, placement)

    def condition(self, requests: Sequence[EditRequest]) -> Tensor:
        """The control, [B, 32 + 64, F, H, W], prepared by the pipeline as the checkpoint was trained.

        The inside of the mask is grey, as in VACE's own inpainting: the model is not shown what it
        is to replace.
        """
        self.placement.need("vae")
        controls = []
        for request in requests:
            pixels = to_pixels(request.video[None], self.device)[0]
            inside = request.mask.to(self.device).float()[None]
            grey = (pixels * (1 - inside))[None]
            latents = self.pipe.prepare_video_latents(grey, inside[None], [[]], device=self.device)
            controls.append(
                torch.cat([latents, self.pipe.prepare_masks(inside[None], [[]])], dim=1)
            )
        return torch.cat(controls)

    def random_inputs(
        self, clips: int, latent_size: tuple[int, int, int]
    ) -> tuple[Tensor, Prompt, Tensor]:
        """As of text-to-video, and a control."""
        latents, prompt, _ = super().random_inputs(clips, latent_size)
        channels = self.pipe.transformer.config.vace_in_channels
        control = torch.randn(clips, channels, *latent_size, device=latents.device)
        return latents, prompt, control

    def _shown(self, condition: Tensor | None, dtype: torch.dtype) -> dict[str, Tensor]:
        """The control."""
        assert condition is not None
        return {"control_hidden_states": condition.to(dtype)}
