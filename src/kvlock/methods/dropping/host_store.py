"""Keys and values that wait in the host's memory: copied beside the computation, a layer ahead."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

Kept = tuple[Tensor, Tensor]  # a layer's keys and values, [1, S, D] each


class HostStore:
    """Keeps layers' keys and values in memory that is pinned once and written again at each refresh.

    On a GPU copies go through a stream of their own; on the CPU they are plain copies.
    """

    def __init__(self) -> None:
        self._memory: dict[tuple[int, int], Kept] = {}
        self._stream: torch.cuda.Stream | None = None

    def put(self, clip: int, layer: int, kept: Kept) -> Kept:
        """Copy what the current stream computes; gives the host's tensors, to be read by `fetch`."""
        memory = self._memory.get((clip, layer))
        if memory is None or memory[0].shape != kept[0].shape:
            memory = self._memory[clip, layer] = (_on_host(kept[0]), _on_host(kept[1]))
        with self._aside(kept[0].device):
            for there, here in zip(memory, kept):
                there.copy_(here, non_blocking=True)
                self._hold(here)
        return memory

    def fetch(self, kept: Kept, room: int, device: torch.device) -> Kept:
        """Begin to copy back, with room for `room` tokens behind; to be used after `arrive`."""
        size = kept[0].shape[1]
        key, value = (x.new_empty(1, size + room, x.shape[2], device=device) for x in kept)
        with self._aside(device):
            for here, there in zip((key, value), kept):
                here[:, :size].copy_(there, non_blocking=True)
                self._hold(here)
        return key, value

    def arrive(self) -> None:
        """What the current stream does from here on comes after all copies begun so far."""
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)

    @contextmanager
    def _aside(self, device: torch.device) -> Iterator[None]:
        """On the copies' stream, after all that the current one has been given."""
        if device.type != "cuda":
            yield
            return
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            yield

    def _hold(self, tensor: Tensor) -> None:
        """The device's memory may not be given to others before the copy is made."""
        if self._stream is not None:
            tensor.record_stream(self._stream)


def _on_host(kept: Tensor) -> Tensor:
    return torch.empty(kept.shape, dtype=kept.dtype, pin_memory=kept.device.type == "cuda")
