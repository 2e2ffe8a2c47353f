"""What is asked: one edit of one clip, or several that share its source. No torch, no command line."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from kvlock.contract.options import require
from kvlock.contract.records import RecordError, typed
from kvlock.methods.catalogue import method_named
from kvlock.methods.execution import Execution
from kvlock.methods.options import MethodConfig, config_from_dict, config_to_dict

if TYPE_CHECKING:
    from torch import Tensor

    from kvlock.media.clip import Clip

SEEDS_END = 2**63
MOST_VARIANTS = 100
MOST_DILATE = 16384  # the longest side that can be written
Size = tuple[int, int] | Literal["auto", "keep"]


@dataclass(frozen=True)
class EditJob:
    """An edit, as a person would order it; `plan` says what it means.

    clip: a video file or a folder of frames, or a clip in memory. mask: a file or folder, or bool
    [F, H, W] in memory, True (white) where the edit may happen. Every prompt is edited with every
    seed. negative_prompt None is the model family's own. options: of the method, by name; config:
    instead of method and options, a whole one. size: (height, width) whose area the clip is scaled
    to for the model, its own ("auto"), or none ("keep"). fps: rate of a folder of frames.
    dilate: pixels that the mask grows. composite: the source's own pixels outside the mask.
    branches, source_store, offload, tile_vae, compile: as in `Execution`; None lets the plan choose
    by what the device has room for.
    Raises ValueError for what makes no sense whatever the clip.
    """

    clip: "str | Path | Clip"
    mask: "str | Path | Tensor"
    prompts: tuple[str, ...]
    model: str
    method: str = "kv-lock"
    options: Mapping[str, Any] = field(default_factory=dict)
    config: MethodConfig | None = None
    source_prompt: str = ""
    negative_prompt: str | None = None
    seeds: tuple[int, ...] = (0,)
    background_seed: int | None = None
    size: Size = "auto"
    fps: float = 16
    invert_mask: bool = False
    dilate: int = 0
    composite: bool = True
    lossless: bool = False
    device: str = "auto"
    dtype: str = "auto"
    branches: Literal["batched", "sequential"] | None = None
    source_store: Literal["device", "host"] | None = None
    offload: Literal["none", "model", "group"] | None = None
    tile_vae: bool = False
    compile: bool = False
    memory_check: bool = True
    flow_shift: float | None = None

    def __post_init__(self) -> None:
        for name in ("clip", "mask", "model"):
            given = not isinstance(getattr(self, name), str) or getattr(self, name).strip()
            require(bool(given), self, name, "a path or a name")
        sound = self.prompts and all(isinstance(p, str) and p.strip() for p in self.prompts)
        require(bool(sound), self, "prompts", "words that describe the edited clip")
        require(0.001 <= self.fps <= 1000, self, "fps", "above 0, at most 1000")
        require(0 <= self.dilate <= MOST_DILATE, self, "dilate", f"0 to {MOST_DILATE} pixels")
        shift = 1 if self.flow_shift is None else self.flow_shift
        require(1e-3 <= shift <= 1000, self, "flow_shift", "above 0, at most 1000")
        require(bool(self.seeds), self, "seeds", "one seed or more")
        count = len(self.prompts) * len(self.seeds)
        if count > MOST_VARIANTS:
            raise ValueError(
                f"{count} edits are asked for, every prompt with every seed; expected at most "
                f"{MOST_VARIANTS} at a time"
            )
        for seed in (*self.seeds, self.background_seed or 0):
            if not 0 <= seed < SEEDS_END:
                raise ValueError(f"seed is {seed}; expected 0 to 2**63 - 1")
        method_named(self.method)

    @property
    def variants(self) -> list[tuple[str, int]]:
        """Every prompt with every seed."""
        return [(prompt, seed) for prompt in self.prompts for seed in self.seeds]

    @property
    def execution(self) -> dict[str, Any]:
        """What is asked of `Execution`, by option."""
        names = ("branches", "source_store", "offload", "tile_vae", "compile")
        asked = {name: getattr(self, name) for name in names}
        return {name: value for name, value in asked.items() if value is not None}

    @property
    def first_background_seed(self) -> int | None:
        """The seed of the background's noise; several variants share that of the first."""
        if self.background_seed is None and len(self.variants) > 1:
            return self.seeds[0]
        return self.background_seed


def job_to_dict(job: EditJob, config: MethodConfig, execution: Execution) -> dict[str, Any]:
    """As JSON has it, with what the plan resolved: paths are absolute, config and execution whole.

    Raises ValueError for a clip or a mask in memory, which has no path.
    """
    record = asdict(replace(job, options={}, config=None))
    for name in ("clip", "mask", "model"):
        value = getattr(job, name)
        if not isinstance(value, (str, Path)):
            raise ValueError(
                f"{name} is in memory; expected a path, so that the edit can be made again"
            )
        is_path = name != "model" or Path(value).is_dir()
        record[name] = str(Path(value).absolute()) if is_path else value
    record |= {"config": config_to_dict(config), **asdict(execution)}
    return {name: value for name, value in record.items() if name != "options"}


def job_from_dict(record: Mapping[str, Any]) -> EditJob:
    """The opposite. Raises ValueError, with the field, for what is none."""
    kinds = get_type_hints(EditJob, localns={"Clip": str, "Tensor": str})  # in JSON, paths alone
    kinds |= {"config": dict[str, Any]}
    del kinds["options"]
    for name in (*kinds, *record):
        if name not in record or name not in kinds:
            flaw = "unknown" if name in record else "missing"
            raise RecordError(f"job.{name} is {flaw}; expected {', '.join(kinds)}")
    values = {name: typed(value, kinds[name], f"job.{name}") for name, value in record.items()}
    values["config"] = config_from_dict(type(method_named(values["method"])), values["config"])
    return EditJob(**values)
