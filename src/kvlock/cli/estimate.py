"""`kvlock estimate`: what an edit would cost, before anything is loaded."""

# pyright: reportInvalidTypeForm=false

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kvlock.cli.groups import plain
from kvlock.cli.values import require_number, size_of
from kvlock.contract.options import MOST_STEPS
from kvlock.editing.job import MOST_VARIANTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from kvlock.cost.estimate import Estimator, Place
    from kvlock.cost.rates import Rates

MOST_FRAMES = 1025
# What is worth comparing. Without a way of its own, a method runs as `kvlock edit` would run it.
MODES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("plain", {"branches": "sequential"}),
    "kv-lock": ("kv-lock", {}),
    "kv-lock --branches batched": ("kv-lock", {"branches": "batched"}),
    "constant": ("constant", {}),
    "flowedit-masked": ("flowedit-masked", {}),
    "drop": ("drop", {}),
    "fast": ("fast", {}),
    "fast --source-store host": ("fast", {"source_store": "host"}),
}


def _modes(estimator: "Estimator") -> list[tuple[str, tuple[str, dict[str, Any]]]]:
    """Those that the model can run."""
    from kvlock.methods.catalogue import METHODS
    from kvlock.methods.refusals import refusal

    backbone = estimator.backbone
    return [(n, mode) for n, mode in MODES.items() if not refusal(METHODS[mode[0]], backbone)]


@dataclass(frozen=True)
class Estimate:
    """Forwards, operations, time and memory of each method. Nothing is loaded but configs."""

    model: str = "wan2.1-vace-1.3b"
    """A name from `kvlock models`, a hub id, or a diffusers folder."""
    gpu: plain(str, "NAME") = ""
    """A card that you may not have: 4090, a100, h100, ...; its published speed, as an estimate."""
    device_memory: plain(str, "24GB") = ""
    """Memory to fit into, instead of the device's or the card's own. With neither --gpu nor --device
    it is that of some GPU, whose speed is not known."""
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
    offload: plain(Literal["none", "model", "group"] | None, "{none,model,group}") = None
    """As in `kvlock edit`; chosen by memory where it is not given."""
    tile_vae: bool = False
    """Encode and decode tile by tile."""

    def run(self) -> None:
        """Print the table."""
        from kvlock.backbones.loading import resolve_dtype
        from kvlock.cost.estimate import Estimator, gigabytes

        video_size = self._video_size()
        device = self._device()
        usual = self.dtype == "auto" and device.type == "cuda"
        dtype = resolve_dtype("bfloat16" if usual else self.dtype, str(device))
        estimator = Estimator(self.model, dtype, video_size[1:])
        family = estimator.backbone.spec
        if not family.counted:
            raise ValueError(
                f"costs of {family.name} cannot be counted without weights, since its forward looks "
                "at data; kvlock models lists others"
            )
        place = self._place(estimator, device, video_size)
        rates = self._rates(estimator, device)
        rows = list(self._rows(estimator, place, rates))
        print(
            f"{self.model}, {self.size}, {self.frames} frames, {str(dtype).removeprefix('torch.')} "
            f"on {self.gpu or device} with {gigabytes(place.bytes)}"
        )
        _print(rows)
        print(
            f"{_about(rates)}. Memory is the most at once, with weights, VAE and a tenth for what no "
            "tensor shows."
        )

    def _rows(
        self, estimator: "Estimator", place: "Place", rates: "Rates | None"
    ) -> "Iterator[tuple[str, ...]]":
        """As the table has them: method, forwards, PFLOP, time, plain = 1, memory."""
        from rich.console import Console
        from rich.progress import track

        from kvlock.cost.estimate import gigabytes

        plain_work, bar = 0.0, Console(stderr=True)
        for name, (method, way) in track(
            _modes(estimator), "counting", console=bar, transient=True
        ):
            cost, need, flags = self._mode(estimator, place, method, way)
            operations = cost.linear_flops + cost.attention_flops
            work = rates.seconds(cost) if rates else operations
            plain_work = plain_work or work
            memory = gigabytes(need) if need <= place.bytes else f"{gigabytes(need)}, too much"
            yield (
                " ".join([name, *flags]),
                f"{cost.branches / self.variants:g}",
                f"{operations / 1e15 / self.variants:.3g}",
                _duration(work / self.variants) if rates else "?",
                f"{work / plain_work:.2f}",
                memory,
            )

    def _mode(
        self, estimator: "Estimator", place: "Place", method: str, way: dict[str, Any]
    ) -> tuple[Any, int, list[str]]:
        """Cost, bytes, and the flags that `kvlock edit` would choose for memory."""
        from kvlock.cost.fitting import choose_execution
        from kvlock.methods.catalogue import method_config

        given = way | {"tile_vae": self.tile_vae}
        given |= {} if self.offload is None else {"offload": self.offload}
        config = method_config(method, {}, {"num_inference_steps": self.steps})
        execution = choose_execution(estimator, config, place, given)
        cost = estimator.cost(place.foreground, config, execution, place.variants)
        flags = [
            f"--{name.replace('_', '-')} {getattr(execution, name)}"
            for name in ("source_store", "offload")
        ]
        usual = ("--source-store device", "--offload none")
        chosen = [
            flag for flag in flags if flag not in usual and flag.split()[1] not in way.values()
        ]
        return cost, estimator.need(config, execution, place), chosen

    def _device(self) -> "torch.device":
        """Of this machine, or `cuda` for a card that it may not have."""
        import torch

        from kvlock.backbones.loading import resolve_device

        some_gpu = self.device_memory and self.device == "auto"
        return torch.device("cuda") if self.gpu or some_gpu else resolve_device(self.device)

    def _place(
        self, estimator: "Estimator", device: "torch.device", size: tuple[int, int, int]
    ) -> "Place":

        from kvlock.cost.estimate import Place, centred_mask
        from kvlock.cost.gpus import gpu_named, memory_bytes

        capacity = None
        if self.gpu:
            capacity = round(gpu_named(self.gpu).memory_gb * 1e9)
        if self.device_memory:
            capacity = memory_bytes(self.device_memory)
        latents = estimator.latent_size(size)
        mask = centred_mask(latents, estimator.backbone.patch_size, self.foreground)
        return Place(device, size, mask, self.variants, capacity)

    def _rates(self, estimator: "Estimator", device: "torch.device") -> "Rates | None":
        """None for a card that is neither here nor named."""
        import torch

        from kvlock.cost.gpus import gpu_named
        from kvlock.cost.rates import device_rates

        if self.gpu:
            return gpu_named(self.gpu).rates
        if device.type == "cuda" and not torch.cuda.is_available():
            return None
        return device_rates(estimator.backbone, device, lambda words: print(words, file=sys.stderr))

    def _video_size(self) -> tuple[int, int, int]:
        """Frames, height, width; raises ValueError for what makes no sense."""
        size = size_of(self.size)
        if isinstance(size, str):
            raise ValueError(f"--size is {self.size!r}; expected WIDTHxHEIGHT such as 832x480")
        for name, most in (
            ("frames", MOST_FRAMES),
            ("steps", MOST_STEPS),
            ("variants", MOST_VARIANTS),
        ):
            require_number(f"--{name}", getattr(self, name), 1, most)
        if not 0 < self.foreground <= 1:
            raise ValueError(
                f"--foreground is {self.foreground}; expected a share above 0, at most 1"
            )
        return (self.frames, *size)


def _print(rows: "list[tuple[str, ...]]") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("method", "forwards", "PFLOP", "time", "plain = 1", "memory", box=box.SIMPLE)
    for row in rows:
        table.add_row(*row)
    Console(width=max(100, max(len(row[0]) for row in rows) + 62)).print(table)


def _about(rates: "Rates | None") -> str:
    """How the times were had."""
    if rates is None:
        return "No time: the card's speed is not known (name it: --gpu 4090); plain = 1 counts FLOP"
    how = "measured on it" if rates.measured else "estimated from its data sheet, not measured"
    return (
        f"Time is of the denoising, at {rates.linear / 1e12:.3g} TFLOP/s in linear layers and "
        f"{rates.attention / 1e12:.3g} in attention, {how}"
    )


def _duration(seconds: float) -> str:
    """For people."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
