"""Every command, and how its words are read."""

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from kvlock.cli.bench import BenchGroup
from kvlock.cli.demo import Demo
from kvlock.cli.edit import Edit
from kvlock.cli.estimate import Estimate
from kvlock.cli.finish import Finish
from kvlock.cli.groups import HELP_ALL
from kvlock.cli.mask import Mask
from kvlock.cli.models import Models
from kvlock.cli.shapes import ShapesGroup
from kvlock.cli.studies import Calibrate

Command = (
    Annotated[Edit, tyro.conf.subcommand("edit")]
    | Annotated[Mask, tyro.conf.subcommand("mask")]
    | Annotated[Finish, tyro.conf.subcommand("finish")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Models, tyro.conf.subcommand("models")]
    | Annotated[Estimate, tyro.conf.subcommand("estimate")]
    | Annotated[BenchGroup, tyro.conf.subcommand("bench")]
    | Annotated[Calibrate, tyro.conf.subcommand("calibrate")]
    | Annotated[ShapesGroup, tyro.conf.subcommand("shapes")]
)


@dataclass(frozen=True)
class Version:
    """What `--version` runs."""

    def run(self) -> None:
        """Print all that moves numbers."""
        from kvlock.versions import versions

        print("\n".join(f"{name} {version}" for name, version in versions().items()))


def parsed(words: list[str]) -> Any:
    """The command that the words ask for. Exits with code 2, in a sentence, where there is none."""
    if words == ["--version"]:
        return Version()
    return tyro.cli(
        Command,
        prog="kvlock",
        description="Edit one thing in a video and keep the rest. --version prints all that moves numbers.",
        args=["--help" if word == HELP_ALL else word for word in words],
    )
