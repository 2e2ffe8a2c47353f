"""`kvlock demo`: a clip of the built-in world, edited as the paper does it."""

from dataclasses import dataclass

from kvlock.cli.values import out_folder, require_number

MODEL = "shapes"


@dataclass(frozen=True)
class Demo:
    """Render a clip of the built-in world, edit it by KV-Lock, and say where to look."""

    out: str = "kvlock-demo"
    """Folder for the clip, its mask and the edit."""
    seed: int = 72
    """Which scene of the built-in world."""

    def run(self) -> None:
        """Scene, mask, edit; the files of an earlier demo are replaced."""
        out = out_folder(self.out)
        require_number("--seed", self.seed, least=0)
        if out.suffix:
            raise ValueError(f"--out is {self.out}; expected a folder")
        from kvlock.cli.run import run_job
        from kvlock.editing.job import EditJob
        from kvlock.shapes.scenes import write_scene

        scene = write_scene(self.seed, out)
        job = EditJob(
            out / "source.mp4",
            out / "mask.mp4",
            (scene.prompt,),
            MODEL,
            source_prompt=scene.source_prompt,
        )
        print(f"source: {scene.source_prompt}\nedit:   {scene.prompt}")
        run_job(job, out, overwrite=True, notes=[])
        print(f"look at {out}/comparison.mp4 (source | mask | edited), sheet.png and trace.png")
