"""A job from plan to files, with everything worth saying on the terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kvlock.editing.job import EditJob

if TYPE_CHECKING:
    from kvlock.contract.types import StepRecord
    from kvlock.editing.edit import EditPlan
    from kvlock.editing.outputs import Written


def run_job(job: EditJob, out: Path, overwrite: bool, notes: list[str]) -> None:
    """Claim `out`, then plan, edit and write a job, with everything worth saying on the terminal."""
    from kvlock.backbones.checkpoints import INDEX, config_file
    from kvlock.editing.destination import claimed_out
    from kvlock.editing.edit import plan, run
    from kvlock.editing.keeping import keep
    from kvlock.editing.outputs import write_claimed
    from kvlock.editing.room import check_writing

    with claimed_out(job, out, overwrite) as work:
        config_file(
            job.model, INDEX
        )  # before anything is counted for a model that is not to be had
        planned = plan(job)
        say([*notes, *planned.notes, *check_writing(planned, out)])
        with progress(planned) as on_step:
            edits = run(planned, on_step, keep=lambda denoised: say(keep(work, planned, denoised)))
        written = write_claimed(edits, out, work, overwrite)
    say_written(planned, written)


def say(notes: list[str]) -> None:
    """Sentences on the terminal, warnings apart."""
    for note in notes:
        print(note, file=sys.stderr if note.startswith("warning") else sys.stdout)


def say_written(planned: "EditPlan", written: "Written") -> None:
    """How well the background was kept, what is to be known, and where all is."""
    variants = planned.job.variants
    for (prompt, seed), report in zip(variants, written.reports):
        print(report if len(variants) == 1 else f"{prompt}, seed {seed}: {report}")
    say([*written.notes, f"written: {written.out}"])


@contextmanager
def progress(planned: "EditPlan") -> "Iterator[Callable[[list[StepRecord]], None]]":
    """A bar with an estimate; gives what each step's records go to, of which the first is shown."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    text = "variance {task.fields[variance]} alpha {task.fields[alpha]} omega {task.fields[omega]}"
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn(text))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("edit", total=planned.steps, variance="-", alpha="-", omega="-")

        def on_step(records: "list[StepRecord]") -> None:
            record = records[0]
            variance = "-" if record.variance is None else f"{record.variance:.4f}"
            alpha, omega = f"{record.fusion_ratio:.2f}", f"{record.guidance_scale:.2f}"
            bar.update(task, advance=1, variance=variance, alpha=alpha, omega=omega)

        yield on_step
