"""Which parts of a pipeline are on the device, and which wait in the host's memory."""

from typing import Any, Literal, get_args

import torch
from diffusers.hooks import apply_group_offloading
from torch import nn

Offload = Literal["none", "model", "group"]
OFFLOADS: tuple[Offload, ...] = get_args(Offload)
EXPERTS = ("transformer", "transformer_2")
TEXTS = ("text_encoder", "text_encoder_2", "connectors")
CPU = torch.device("cpu")


class Placement:
    """Moves parts to the device before they run, and away what is not needed beside them.

    The text encoders, large parts that run once, are never there with the others. With `offload`
    "none" transformers and VAE stay together once they are there; with "model" one part is there
    at a time, and of two experts the active one; with "group" the transformers' blocks and the text
    encoders' layers are, too. Without a device everything is left where it is: the pipeline's owner
    moves it.
    """

    def __init__(self, pipe: Any, device: torch.device | None = None, offload: Offload = "none"):
        self._pipe, self._device, self._offload = pipe, device, offload
        self._there: set[str] = set()
        self._hooked: set[str] = set()
        if offload == "group" and device:
            self._hooked = {n for n in (*EXPERTS, *TEXTS) if getattr(pipe, n, None) is not None}
        for name in self._hooked:  # one block a group, as packed forwards need it
            blocks = dict(offload_type="block_level", num_blocks_per_group=1)
            how = blocks if name in EXPERTS else dict(offload_type="leaf_level")
            apply_group_offloading(self._module(name), device, CPU, **how)

    @property
    def device(self) -> torch.device:
        """Where computation happens."""
        return self._device or self._pipe._execution_device

    def need(self, *parts: str) -> None:
        """These parts run next, together."""
        coming = set(parts) - self._there
        if self._device is None or self._device.type == "cpu" or not coming:
            return
        together = self._offload == "none" and not set(parts) & set(TEXTS)
        leaving = self._there - set(parts)
        if together:
            leaving &= set(TEXTS)
        for name in leaving - self._hooked:
            self._module(name).to(CPU)
        if leaving and self._device.type == "cuda":
            torch.cuda.empty_cache()  # a text encoder's pieces are too small for a VAE's tensors
        for name in coming - self._hooked:
            self._module(name).to(self._device)
        self._there = (self._there - leaving) | coming

    def _module(self, name: str) -> nn.Module:
        return getattr(self._pipe, name)
