"""What is known of a model family: one record. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Depth:
    """Fields of a transformer's config: how many layers, and the numbers of those that a control
    stream has one beside. Costs are counted on few layers, and are the same for each that follows.
    """

    layers: str
    control: str | None = None

    def repeats(self, config: Mapping[str, Any]) -> int:
        """How often the layers' pattern repeats; 1 where there is none."""
        layers = config[self.layers]
        if self.control is None:
            return layers
        beside = list(config[self.control])
        period = layers // len(beside)
        return len(beside) if beside == list(range(0, layers, period)) else 1

    def shortened(self, config: Mapping[str, Any], repeats: int) -> dict[str, Any]:
        """The fields that leave so many repeats."""
        period = config[self.layers] // self.repeats(config)
        layers = {self.layers: period * repeats}
        return layers | (
            {self.control: [period * i for i in range(repeats)]} if self.control else {}
        )

    def one_layer(self) -> dict[str, Any]:
        """The fields that leave one layer."""
        return {self.layers: 1} | ({self.control: [0]} if self.control else {})


@dataclass(frozen=True)
class Family:
    """One row.

    pipeline, transformer, vae: classes of diffusers by name; text_encoder: of transformers;
    adapter: "module:class", which is called with a pipeline. takes_control: whether the model is
    shown the source outside the mask; without it, the lock alone ties the edit to the source.
    marks: fields of the pipeline's own config that tell this row from others of its class.
    modules: further parts of the pipeline that have weights, by the names of their classes, with
    "module:" before one that is not at the top of diffusers or transformers; unused: parts that
    are not loaded.
    flow_matching: whether predictions are velocities. embedded_guidance: whether guidance is a
    number that the model reads, so that there is no unconditional branch. counted: whether costs
    can be counted without weights; not where a forward looks at its data.
    published: values in the transformer's config by which the published checkpoints are known.
    All below holds for those alone: size (height, width), whose area clips are scaled to;
    max_frames, fps: what the model was trained on; negative_prompt: of the unconditional branch
    where the user gives none; flow_shifts: by size; max_sequence_length: text tokens; options: of
    a method, where they differ from the paper's; text_config: the text encoder's, before it is
    there; scheduler: likewise, where it is not Wan's. depth: how the transformer's layers repeat.
    """

    name: str
    pipeline: str
    transformer: str
    vae: str
    text_encoder: str
    adapter: str
    takes_control: bool
    depth: "Depth | None" = None
    marks: dict[str, Any] = field(default_factory=dict, hash=False)
    modules: dict[str, str] = field(default_factory=dict, hash=False)
    unused: tuple[str, ...] = ()
    flow_matching: bool = True
    embedded_guidance: bool = False
    counted: bool = True
    published: dict[str, Any] = field(default_factory=dict, hash=False)
    default_method: str = "kv-lock"
    size: Size | None = None
    max_frames: int | None = None
    fps: float | None = None
    negative_prompt: str = ""
    flow_shifts: dict[Size, float] = field(default_factory=dict, hash=False)
    max_sequence_length: int = 512
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    text_config: dict[str, Any] = field(default_factory=dict, hash=False)
    scheduler: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def parts(self) -> tuple[str, ...]:
        """Everything that has weights."""
        return ("transformer", "vae", "text_encoder", *self.modules)

    @property
    def experts(self) -> tuple[str, ...]:
        """Its transformers; of two, the second takes over at low noise."""
        return tuple(part for part in self.parts if part.startswith("transformer"))

    def flow_shift(self, size: Size | None = None) -> float | None:
        """That of the known size whose area is nearest; of the first without a size.

        None leaves the checkpoint's own.
        """
        if not self.flow_shifts:
            return None
        return self.flow_shifts[self._nearest(size) if size else next(iter(self.flow_shifts))]

    def adapter_class(self) -> Any:
        """The adapter, imported."""
        module, name = self.adapter.split(":")
        return getattr(import_module(module), name)

    def _nearest(self, size: Size) -> Size:
        def ratio(known: Size) -> float:
            small, large = sorted((known[0] * known[1], size[0] * size[1]))
            return large / small

        return min(self.flow_shifts, key=ratio)


def classes_of(row: Family) -> Family:
    """What is known where the classes are the row's and the checkpoint is not a published one."""
    known = (
        "name pipeline transformer vae text_encoder adapter takes_control depth marks modules unused "
        "flow_matching embedded_guidance counted default_method"
    )
    return Family(**{name: getattr(row, name) for name in known.split()})
