"""Which parts of a pipeline are on the device, and which wait in the host's memory."""

from typing import Any, Literal, get_args

import torch
from diffusers.hooks import apply_group_offloading
from torch import nn

Part = Literal["text_encoder", "transformer", "vae"]
Offload = Literal["none", "model", "group"]
OFFLOADS: tuple[Offload, ...] = get_args(Offload)
TOGETHER = {"transformer", "vae"}
CPU = torch.device("cpu")


class Placement:
    """Moves a part to the device before it runs, and away what is not needed beside it.

    The text encoder, a large part that runs once, is never there with the others. With `offload`
    "none" transformer and VAE stay together once they are there; with "model" one part is there at
    a time; with "group" the transformer's blocks and the text encoder's layers are, too. Without
    a device everything is left where it is: the pipeline's owner moves it.
    """

    def __init__(self, pipe: Any, device: torch.device | None = None, offload: Offload = "none"):
        self._pipe, self._device, self._offload = pipe, device, offload
        self._there: set[str] = set()
        self._hooked = {"transformer", "text_encoder"} if offload == "group" and device else set()
        if self._hooked:  # one block a group, as packed forwards need it
            apply_group_offloading(
                pipe.transformer, device, CPU, "block_level", num_blocks_per_group=1
            )
            apply_group_offloading(pipe.text_encoder, device, CPU, "leaf_level")

    @property
    def device(self) -> torch.device:
        """Where computation happens."""
        return self._device or self._pipe._execution_device

    def need(self, part: Part) -> None:
        """This part runs next."""
        if self._device is None or self._device.type == "cpu" or part in self._there:
            return
        together = self._offload == "none" and part in TOGETHER
        leaving = self._there - (TOGETHER if together else set())
        for name in leaving - self._hooked:
            self._module(name).to(CPU)
        if leaving and self._device.type == "cuda":
            torch.cuda.empty_cache()  # a text encoder's pieces are too small for a VAE's tensors
        for name in {part} - self._hooked:
            self._module(name).to(self._device)
        self._there = (self._there - leaving) | {part}

    def _module(self, name: str) -> nn.Module:
        return getattr(self._pipe, name)
