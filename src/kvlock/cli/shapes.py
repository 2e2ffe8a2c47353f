"""`kvlock shapes`: the built-in world."""

# pyright: reportInvalidTypeForm=false

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from kvlock.cli.values import out_folder, require_number, scene_range


@dataclass(frozen=True)
class ShapesRender:
    """Render scenes of the built-in world: source, mask and true edit as mp4, a PNG sheet, and JSON."""

    out: str
    """Folder to write to."""
    num: int = 8
    """How many scenes."""
    seed: int = 0
    """The first scene's seed; the others follow."""

    def run(self) -> None:
        """Write the scenes."""
        from kvlock.shapes.scenes import render_scenes

        render_scenes(scene_range(self.seed, self.num), out_folder(self.out))
        print(f"{self.num} scenes in {self.out}")


@dataclass(frozen=True)
class ShapesTrain:
    """Train the built-in world's models, stage by stage. Resumes where it was stopped."""

    out: str
    """Folder for the training state and, at the end, the models."""
    stage: str = "all"
    """all, vae, text, latents, vace, text-to-video, decoder or export."""
    vae_steps: int = 6000
    """Steps of the VAE, 4 crops each."""
    transformer_steps: int = 40000
    """Steps of each of the two transformers."""
    decoder_steps: int = 1500
    """Steps of the decoder alone, on whole clips."""
    clips: int = 16000
    """Clips that the transformers see."""
    init: str = ""
    """A folder of models to start from, as a training exports them; empty starts from random weights."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def run(self) -> None:
        """Run the stages."""
        from kvlock.backbones.loading import resolve_device
        from kvlock.bench.training import draw_samples, plot_training
        from kvlock.shapes.training import train_world

        for name in ("vae_steps", "transformer_steps", "decoder_steps", "clips"):
            require_number(f"--{name.replace('_', '-')}", getattr(self, name), least=1)
        steps = dict(
            vae=self.vae_steps, transformer=self.transformer_steps, decoder=self.decoder_steps
        )
        out = out_folder(self.out)
        samples = out / "samples"
        device = str(resolve_device(self.device))
        init = Path(self.init) if self.init else None
        if init and not (init / "shapes-vace").is_dir():
            raise ValueError(
                f"--init {init} holds no shapes-vace; expected RUN/weights of a training"
            )

        def draw(weights: Path, step: int) -> None:
            draw_samples(weights / "shapes-vace", samples, step)

        train_world(out, self.stage, steps, self.clips, device, draw, init)
        if not plot_training(out, out / "curve.png"):
            print(f"no curve: nothing under {out} was trained for long enough to log a line")


@dataclass(frozen=True)
class ShapesInstall:
    """Replace the models that come with kvlock by those of a training, in this checkout."""

    run_folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder given to `kvlock shapes train`."""

    def run(self) -> None:
        """Copy the weights, and say what follows."""
        from kvlock.backbones.checkpoints import shipped_folder
        from kvlock.shapes.checkpoint import install_models
        from kvlock.shapes.training import WEIGHTS

        into = shipped_folder()
        install_models(Path(self.run_folder) / WEIGHTS, into)
        print(f"written: {into}")
        print("next: kvlock calibrate shapes; kvlock calibrate shapes-t2v; kvlock shapes evaluate")


@dataclass(frozen=True)
class ShapesEvaluate:
    """Measure the built-in model on held-out scenes: VAE, edits by each method, text-to-video."""

    out: str
    """Folder for the numbers (JSON) and a contact sheet."""
    num: int = 64
    """How many scenes."""
    seed: int = 0
    """The first held-out seed."""
    steps: int = 30
    """Denoising steps."""
    methods: tuple[str, ...] = ("plain", "kv-lock")
    """Which methods edit the scenes."""
    model: str = "shapes"
    """The model to edit with."""
    t2v_model: str = "shapes-t2v"
    """The text-to-video model."""

    def run(self) -> None:
        """Measure and print."""
        from kvlock.bench.world import evaluate_world

        evaluate_world(
            out_folder(self.out),
            scene_range(self.seed, self.num),
            self.steps,
            self.methods,
            self.model,
            self.t2v_model,
        )


Shapes = (
    Annotated[ShapesRender, tyro.conf.subcommand("render")]
    | Annotated[ShapesTrain, tyro.conf.subcommand("train")]
    | Annotated[ShapesInstall, tyro.conf.subcommand("install")]
    | Annotated[ShapesEvaluate, tyro.conf.subcommand("evaluate")]
)


@dataclass(frozen=True)
class ShapesGroup:
    """The built-in world of moving shapes."""

    action: Annotated[Shapes, tyro.conf.arg(name="")]

    def run(self) -> None:
        """Run the chosen action."""
        self.action.run()
