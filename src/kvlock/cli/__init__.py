"""The command line. Commands are frozen records; torch and diffusers are imported when one runs."""

import sys
from typing import Annotated

import tyro

from kvlock.cli.bench import BenchGroup
from kvlock.cli.demo import Demo
from kvlock.cli.edit import Edit
from kvlock.cli.estimate import Estimate
from kvlock.cli.groups import HELP_ALL
from kvlock.cli.mask import Mask
from kvlock.cli.models import Models
from kvlock.cli.shapes import ShapesGroup
from kvlock.cli.studies import Calibrate

OUT_OF_MEMORY = ("out of memory", "allocate memory", "ALLOC_FAILED")

Command = (
    Annotated[Edit, tyro.conf.subcommand("edit")]
    | Annotated[Mask, tyro.conf.subcommand("mask")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Models, tyro.conf.subcommand("models")]
    | Annotated[Estimate, tyro.conf.subcommand("estimate")]
    | Annotated[BenchGroup, tyro.conf.subcommand("bench")]
    | Annotated[Calibrate, tyro.conf.subcommand("calibrate")]
    | Annotated[ShapesGroup, tyro.conf.subcommand("shapes")]
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 when it was done, 2 for what the user can mend, 4 out of memory, 130 stopped."""
    words = sys.argv[1:] if arguments is None else arguments
    if words == ["--version"]:
        from kvlock.versions import versions

        print("\n".join(f"{name} {version}" for name, version in versions().items()))
        return 0
    words = ["--help" if word == HELP_ALL else word for word in words]
    command = tyro.cli(
        Command,
        prog="kvlock",
        description="Edit one thing in a video and keep the rest. --version prints all that moves numbers.",
        args=words,
    )
    try:
        command.run()
    except (ValueError, ArithmeticError, OSError) as error:
        print(f"kvlock: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kvlock: interrupted", file=sys.stderr)
        return 130
    except (MemoryError, RuntimeError) as error:
        said = str(error)
        if not isinstance(error, MemoryError) and not any(w in said for w in OUT_OF_MEMORY):
            raise
        print(
            "kvlock: out of memory; try --offload model, --tile-vae, --size, a shorter clip or a "
            "smaller model (kvlock estimate says what each needs)",
            file=sys.stderr,
        )
        return 4
    return 0


def run_and_exit() -> None:
    """The console script."""
    sys.exit(main())
