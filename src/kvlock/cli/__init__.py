"""The command line. Commands are frozen records; torch and diffusers are imported when one runs."""

import sys
from typing import Annotated

import tyro

from kvlock.cli.bench import BenchGroup, Calibrate
from kvlock.cli.edit import Demo, Edit, Models
from kvlock.cli.estimate import Estimate
from kvlock.cli.shapes import ShapesGroup

OUT_OF_MEMORY = ("out of memory", "allocate memory", "ALLOC_FAILED")


Command = (
    Annotated[Edit, tyro.conf.subcommand("edit")]
    | Annotated[Estimate, tyro.conf.subcommand("estimate")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[ShapesGroup, tyro.conf.subcommand("shapes")]
    | Annotated[BenchGroup, tyro.conf.subcommand("bench")]
    | Annotated[Calibrate, tyro.conf.subcommand("calibrate")]
    | Annotated[Models, tyro.conf.subcommand("models")]
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 when it was done, 2 for what the user can mend, 4 out of memory, 130 interrupted."""
    command = tyro.cli(
        Command, prog="kvlock", description="Edit one thing in a video and keep the rest.", args=arguments
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
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        print(
            "kvlock: out of memory; try a shorter clip or a smaller model (kvlock edit also has --offload, --tile-vae "
            "and --size)",
            file=sys.stderr,
        )
        return 4
    return 0


def run_and_exit() -> None:
    """The console script."""
    sys.exit(main())
