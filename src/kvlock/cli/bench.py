"""`kvlock bench`: every method on every clip, and what the tables say."""

# pyright: reportInvalidTypeForm=false

import dataclasses
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from kvlock.cli.groups import group
from kvlock.cli.options import method_options
from kvlock.cli.studies import BenchDetector
from kvlock.cli.values import out_folder, require_number, seed_range

MethodOptions = method_options([])


@dataclass(frozen=True)
class BenchRun:
    """Edit every clip of a suite by every method; stop and start it as you like, in as many processes as you like."""

    suite: Annotated[str, tyro.conf.Positional]
    """shapes (64 held-out scenes), shapes-validation, shapes-calibration, or a .jsonl manifest."""
    out: str
    """Folder for the results."""
    methods: str = "all"
    """Comma-separated names, or all. Each is scored with and without +composite."""
    model: str = "shapes"
    """A name from `kvlock models`, a hub id, or a diffusers folder."""
    limit: int = 0
    """The first so many clips; 0 takes all."""
    seeds: str = "0"
    """One seed, or a range such as 0..2."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    dtype: str = "auto"
    """auto, float32, bfloat16 or float16."""
    options: group(MethodOptions) = field(default_factory=MethodOptions)

    def run(self) -> None:
        """Run what is not there yet."""
        from kvlock.bench.jobs import CEILING
        from kvlock.bench.runner import run_suite
        from kvlock.bench.suite import read_suite

        out, suite = out_folder(self.out), read_suite(self.suite)
        require_number("--limit", self.limit, least=0)
        if self.limit:
            suite = dataclasses.replace(suite, items=suite.items[: self.limit])
        overrides = {name: v for name, v in asdict(self.options).items() if v is not None}
        chosen = [m.strip() for m in self.methods.split(",") if m.strip()]
        if self.methods == "all":
            chosen = _every_method(self.model)
        run_suite(
            suite,
            self.model,
            (CEILING, *chosen),
            seed_range(self.seeds),
            overrides,
            out,
            self.device,
            self.dtype,
        )


def _every_method(model: str) -> list[str]:
    """Those that the model can run; says which are left out, and why."""
    from kvlock.backbones.calibration import read_usual
    from kvlock.cost.skeleton import skeleton
    from kvlock.methods.catalogue import CALIBRATED, METHODS
    from kvlock.methods.refusals import refusal

    backbone = skeleton(model)
    chosen = [m for m in METHODS if m != "vace" or backbone.spec.takes_control]
    refused = [m for m in chosen if refusal(METHODS[m], backbone)]
    if refused:
        print(f"without {', '.join(refused)}, which make no sense on {model}")
    chosen = [m for m in chosen if m not in refused]
    if read_usual(model):
        return chosen
    names = ", ".join(CALIBRATED)
    print(f"without {names}: {model} has no calibration, see kvlock calibrate --help")
    return [m for m in chosen if m not in CALIBRATED]


@dataclass(frozen=True)
class BenchScore:
    """Score the edits of a folder by networks: LPIPS, CLIP, DINO, aesthetics. Nothing is downloaded."""

    out: Annotated[str, tyro.conf.Positional]
    """The folder given to `kvlock bench run`."""
    dino: str = "facebook/dino-vitb16"
    """Subject consistency: a hub id in the cache, or a folder."""
    clip_b32: str = "openai/clip-vit-base-patch32"
    """Background consistency: a hub id in the cache, or a folder."""
    clip_l14: str = "openai/clip-vit-large-patch14"
    """Text alignment and aesthetics: a hub id in the cache, or a folder."""
    aesthetic_head: str = ""
    """LAION's linear head on CLIP L/14 as safetensors."""
    lpips: str = ""
    """The state of lpips.LPIPS(net='alex') as safetensors."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""

    def run(self) -> None:
        """Measure what can be measured, and say what cannot."""
        from kvlock.bench.networks import Sources, score_folder

        sources = Sources(self.dino, self.clip_b32, self.clip_l14, self.aesthetic_head, self.lpips)
        print(score_folder(Path(self.out), sources, self.device))


@dataclass(frozen=True)
class ExportVBench:
    """Write every edit of a folder as clips for `vbench evaluate --mode=custom_input`, in VBench's own environment."""

    out: Annotated[str, tyro.conf.Positional]
    """The folder given to `kvlock bench run`."""
    videos: Annotated[str, tyro.conf.Positional]
    """A new folder for the clips."""

    def run(self) -> None:
        """Write the clips."""
        from kvlock.bench.vbench import export_videos

        videos = out_folder(self.videos, "VIDEOS")
        print(f"{export_videos(Path(self.out), videos)} clips in {videos}")


@dataclass(frozen=True)
class ImportVBench:
    """Take VBench's *_eval_results.json of exported clips into the results."""

    out: Annotated[str, tyro.conf.Positional]
    """The folder given to `kvlock bench run`."""
    file: Annotated[str, tyro.conf.Positional]
    """What VBench wrote."""

    def run(self) -> None:
        """Read and add."""
        from kvlock.bench.vbench import import_scores

        print(import_scores(Path(self.out), Path(self.file)))


@dataclass(frozen=True)
class BenchTable:
    """Tables (Markdown, CSV) and an HTML report of what a folder holds so far."""

    out: Annotated[str, tyro.conf.Positional]
    """The folder given to `kvlock bench run`."""
    report_clips: int = 16
    """How many clips the report shows; 0 writes none."""
    against: str = ""
    """A method to give paired differences to, besides plain and vace."""

    def run(self) -> None:
        """Write and print."""
        from kvlock.bench.report import write_report
        from kvlock.bench.rows import read_rows
        from kvlock.bench.tables import print_tables, write_tables
        from kvlock.bench.tradeoff import plot_tradeoff

        require_number("--report-clips", self.report_clips, least=0)
        rows = read_rows(Path(self.out))
        text = write_tables(Path(self.out), rows, self.against)
        print_tables(rows, self.against)
        written = [f"{self.out}/table.md", f"{self.out}/table.csv"]
        if plot_tradeoff(rows, Path(self.out) / "tradeoff.png"):
            written.append(f"{self.out}/tradeoff.png")
        if self.report_clips:
            written.append(str(write_report(Path(self.out), self.report_clips, text)))
        print(f"written: {', '.join(written)}")


@dataclass(frozen=True)
class BenchConvert:
    """Write the manifest of a public benchmark that lies on disk: vace, five, davis, or a plain folder of clips."""

    kind: Annotated[str, tyro.conf.Positional]
    """vace (VACE-Benchmark), five (FiVE-Bench), davis, or folder (CLIP/{video.mp4, mask.*, prompt.txt})."""
    root: Annotated[str, tyro.conf.Positional]
    """Where it was unpacked."""
    out: str
    """The manifest to write, a .jsonl file; its paths are relative to it."""
    prompts: str = ""
    """JSON {clip: prompt} for benchmarks without prompts on disk (vace, davis)."""

    def run(self) -> None:
        """Write the manifest."""
        from kvlock.bench.datasets.convert import convert
        from kvlock.bench.suite import write_suite

        out = Path(self.out)
        if out.suffix != ".jsonl" or not out.absolute().parent.is_dir():
            raise ValueError(f"--out is {self.out}; expected a .jsonl file in a folder that exists")
        items = convert(
            self.kind, Path(self.root), out, Path(self.prompts) if self.prompts else None
        )
        write_suite(items, out)
        print(f"{len(items)} clips in {out}")


Bench = (
    Annotated[BenchRun, tyro.conf.subcommand("run")]
    | Annotated[BenchTable, tyro.conf.subcommand("table")]
    | Annotated[BenchScore, tyro.conf.subcommand("score")]
    | Annotated[ExportVBench, tyro.conf.subcommand("export-vbench")]
    | Annotated[ImportVBench, tyro.conf.subcommand("import-vbench")]
    | Annotated[BenchConvert, tyro.conf.subcommand("convert")]
    | Annotated[BenchDetector, tyro.conf.subcommand("detector")]
)


@dataclass(frozen=True)
class BenchGroup:
    """Every method on every clip of a suite, with paired intervals."""

    action: Annotated[Bench, tyro.conf.arg(name="")]

    def run(self) -> None:
        """Run the chosen action."""
        self.action.run()
