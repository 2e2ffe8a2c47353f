"""`kvlock bench detector` and `kvlock calibrate`: what the variance says of edits."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from kvlock.cli.values import out_folder, require_number, scene_range
from kvlock.editing.job import MOST_VARIANTS


@dataclass(frozen=True)
class BenchDetector:
    """Ask whether the paper's variance, or a rival of it, tells hallucinated edits from good ones."""

    out: str
    """Folder for the edits' signals, the table and the plots; a stopped run goes on there."""
    model: str = "shapes"
    """The model to edit with."""
    num: int = 64
    """How many scenes."""
    seed: int = 20000
    """The first scene's seed; held-out scenes and those that settings are chosen on lie elsewhere."""
    variants: int = 4
    """How many noises each scene is edited with."""
    steps: int = 30
    """Denoising steps."""
    guidance_scale: float | None = None
    """omega_0; the model's own where it is not given."""
    threshold: float | None = None
    """tau of the schedules that are watched; the model's own where it is not given."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def run(self) -> None:
        """Run what is not there yet, and print the table."""
        from kvlock.bench.detector.study import run_detector

        given = dict(
            num_inference_steps=self.steps,
            guidance_scale=self.guidance_scale,
            threshold=self.threshold,
        )
        overrides = {name: value for name, value in given.items() if value is not None}
        out, scenes = out_folder(self.out), scene_range(self.seed, self.num)
        require_number("--variants", self.variants, least=2, most=MOST_VARIANTS)
        print(run_detector(out, self.model, scenes, self.variants, overrides, self.device))
        print(f"written: {self.out}/detector.md, detector.csv, signals.png, roc.png, feedback.png")


@dataclass(frozen=True)
class Calibrate:
    """Measure what is usual for a model, once, for --method calibrated; it is stored beside the model."""

    model: Annotated[str, tyro.conf.Positional]
    """A name from `kvlock models`, a hub id, or a diffusers folder."""
    suite: str = ""
    """A .jsonl manifest of a few ordinary edits; the built-in models have their own."""
    steps: int = 30
    """Denoising steps; the result serves any number of them from 15 on."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    dtype: str = "auto"
    """auto, float32, bfloat16 or float16."""

    def run(self) -> None:
        """Edit, measure, store."""
        from kvlock.backbones.checkpoints import model_source
        from kvlock.backbones.known_models import known_model
        from kvlock.bench.calibrate import calibrate
        from kvlock.bench.suite import read_suite

        model_source(self.model)  # refuses a name that is none, with the one that is meant
        known = known_model(self.model)
        if not self.suite and not (known and known.packaged):
            raise ValueError(
                "--suite is missing; expected a .jsonl manifest of a few ordinary edits (docs/benchmarks.md)"
            )
        path, clips = calibrate(
            self.model,
            read_suite(self.suite or "shapes-calibration"),
            self.steps,
            self.device,
            self.dtype,
        )
        print(f"{clips} edits; written: {path}")
