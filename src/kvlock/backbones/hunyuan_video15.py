"""HunyuanVideo 1.5 on diffusers' own HunyuanVideo15Pipeline: two texts, condition channels, 4x16.

The pipeline's guider stays unused: guidance is the core's. Beside the latents the model reads
a condition and its mask, and an image, all zero for text-to-video.
"""

from typing import Any

import torch
from torch import Tensor, nn

from kvlock.backbones.hunyuan_video import HunyuanBackbone
from kvlock.backbones.placement import Placement
from kvlock.backbones.seam import AttentionSite
from kvlock.contract.types import Prompt


class HunyuanVideo15Backbone(HunyuanBackbone):
    """A loaded HunyuanVideo15Pipeline as the core's Backbone."""

    def __init__(
        self,
        pipe: Any,
        max_sequence_length: int | None = None,
        placement: Placement | None = None,
    ):
        """max_sequence_length: the pipeline's own where it is not given."""
        super().__init__(pipe, max_sequence_length, placement)
        self.max_sequence_length = max_sequence_length or pipe.tokenizer_max_length

    def encode_one(self, prompt: str) -> tuple[Tensor, ...]:
        """Of the description and of what is to be written in the picture: words, and which are."""
        pipe = self.pipe
        words, which = pipe._get_mllm_prompt_embeds(
            text_encoder=pipe.text_encoder,
            tokenizer=pipe.tokenizer,
            prompt=prompt,
            device=self.device,
            tokenizer_max_length=self.max_sequence_length,
            system_message=pipe.system_message,
            crop_start=pipe.prompt_template_encode_start_idx,
        )
        return pipe.encode_prompt(
            prompt,
            device=self.device,
            dtype=pipe.transformer.dtype,
            prompt_embeds=words,
            prompt_embeds_mask=which,
        )

    def predict(self, latents: Tensor, timestep: Tensor, prompt: Prompt, condition: None) -> Tensor:
        """The velocity, float32 [B, C, F, H, W]."""
        transformer, pipe = self.active(timestep), self.pipe
        dtype, device = transformer.dtype, latents.device
        shown = pipe.prepare_cond_latents_and_mask(latents, dtype, device)
        image = latents.new_zeros(
            len(latents), pipe.vision_num_semantic_tokens, pipe.vision_states_dim, dtype=dtype
        )
        words, which, written, which_written = (part.to(dtype) for part in prompt.parts)
        return transformer(
            hidden_states=torch.cat([latents.to(dtype), *shown], dim=1),
            image_embeds=image,
            timestep=timestep.to(device, dtype, non_blocking=True),
            encoder_hidden_states=words,
            encoder_attention_mask=which,
            encoder_hidden_states_2=written,
            encoder_attention_mask_2=which_written,
            return_dict=False,
        )[0].float()

    def random_inputs(
        self, clips: int, latent_size: tuple[int, int, int]
    ) -> tuple[Tensor, Prompt, None]:
        """Latents and a prompt of random numbers, to count and to time forwards with."""
        config, written = self.pipe.transformer.config, self.pipe.tokenizer_2_max_length
        words = self._words(clips, self.max_sequence_length, config.text_embed_dim)
        prompt = Prompt((*words, *self._words(clips, written, config.text_embed_2_dim)))
        return self._latents(clips, config.out_channels, latent_size), prompt, None

    def sites_of(self, transformer: nn.Module) -> list[AttentionSite]:
        """`transformer_blocks.*.attn`, whose `norm_k` and `to_v` see the video alone."""
        return [
            AttentionSite(f"transformer_blocks.{i}.attn", block.attn)
            for i, block in enumerate(transformer.transformer_blocks)
        ]
