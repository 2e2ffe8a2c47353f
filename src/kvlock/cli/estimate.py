"""`kvlock estimate`: what an edit would cost, before anything is loaded."""

from dataclasses import dataclass
from typing import Any

from kvlock.cli.edit import size_of

# What is worth comparing: name, method, and what differs from it. `plain` runs row by row, as diffusers' pipelines do.
MODES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("plain", {"rows": "sequential"}),
    "constant": ("constant", {"rows": "sequential"}),
    "kv-lock": ("kv-lock", {}),
    "kv-lock --rows sequential": ("kv-lock", {"rows": "sequential"}),
    "drop-locked": ("drop-locked", {"rows": "sequential"}),
    "drop": ("drop", {}),
    "drop-4": ("drop-4", {}),
    "fast": ("fast", {}),
    "fast --source-store host": ("fast", {"source_store": "host"}),
}


@dataclass(frozen=True)
class Estimate:
    """Forwards, operations, time on this device and memory of each mode. Nothing is loaded but configs."""

    model: str = "wan2.1-vace-1.3b"
    """A name from `kvlock models`, a hub id, or a diffusers folder."""
    size: str = "832x480"
    """WIDTHxHEIGHT, as the model sees the clip."""
    frames: int = 81
    """Frames, as the model sees the clip."""
    foreground: float = 0.2
    """Share of the picture that the mask covers, a centred rectangle."""
    steps: int = 50
    """Denoising steps."""
    variants: int = 1
    """Edits of one clip together; forwards, operations and time are for each."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    dtype: str = "auto"
    """auto, float32, bfloat16 or float16."""
    offload: bool = False
    """Keep each part of the model on the CPU until it runs."""
    tile_vae: bool = False
    """Encode and decode tile by tile."""

    def run(self) -> None:
        """Print the table."""
        from rich import box
        from rich.console import Console
        from rich.progress import track
        from rich.table import Table

        from kvlock.backbones.estimate import Estimator, centred_mask, device_bytes, gigabytes
        from kvlock.backbones.loading import resolve_device, resolve_dtype

        device = resolve_device(self.device)
        estimator = Estimator(self.model, resolve_dtype(self.dtype, str(device)), self.tile_vae)
        latents = estimator.latent_size(self._video_size())
        mask = centred_mask(latents, estimator.backbone.patch_size, self.foreground)
        with Console(stderr=True).status("measuring what this device reaches"):
            rates = estimator.rates(device)
        table = Table("mode", "forwards", "PFLOP", "time", "plain = 1", "memory", box=box.SIMPLE)
        plain = 0.0
        shown = track(MODES.items(), "counting", console=Console(stderr=True), transient=True)
        for name, (method, fields) in shown:
            config = method_config(method, {}, {"num_inference_steps": self.steps} | fields)
            assert isinstance(config, KVLockConfig)
            cost = estimator.cost(mask, config, self.variants)
            seconds = rates.seconds(cost) / self.variants
            plain = plain or seconds
            operations = (cost.linear_flops + cost.attention_flops) / 1e15 / self.variants
            memory = gigabytes(estimator.peak_bytes(cost, self._video_size(), self.offload))
            row = (
                f"{cost.rows / self.variants:g}",
                f"{operations:.3g}",
                _duration(seconds),
                f"{seconds / plain:.2f}",
            )
            table.add_row(name, *row, memory)
        there = f"{device}, {gigabytes(device_bytes(device))}"
        print(
            f"{self.model}, {self.size}, {self.frames} frames, {latents} latents, {estimator.dtype} on {there}"
        )
        Console(width=100).print(table)
        print(
            f"Time is of the denoising, at {rates.linear / 1e12:.3g} TFLOP/s in a block's linear layers and "
            f"{rates.attention / 1e12:.3g} in its attention, as measured just now, without transfers to the host. "
            "Memory is the most at once, with weights and VAE. "
            f"kvlock edit runs {DEFAULT_METHODS[family_of(self.model)]} unless told otherwise."
        )

    def _video_size(self) -> tuple[int, int, int]:
        """Frames, height, width; raises ValueError for what makes no sense."""
        size = size_of(self.size, None)
        if size is None:
            raise ValueError(f"--size is {self.size!r}; expected WIDTHxHEIGHT such as 832x480")
        for name, least in (("frames", 1), ("steps", 1), ("variants", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} is {getattr(self, name)}; expected {least} or more")
        if not 0 < self.foreground <= 1:
            raise ValueError(
                f"--foreground is {self.foreground}; expected a share above 0, at most 1"
            )
        return (self.frames, *size)


def _duration(seconds: float) -> str:
    """For people."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
