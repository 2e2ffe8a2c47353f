"""`kvlock finish`: an edit that was made and could not be written."""

# pyright: reportInvalidTypeForm=false

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from kvlock.cli.groups import plain
from kvlock.cli.run import say, say_written


@dataclass(frozen=True)
class Finish:
    """Decode and write an edit that failed after its last step. What is given here overrides its own."""

    out: tyro.conf.Positional[plain(str, "OUT")]
    """The edit's --out."""
    device: plain(str | None, "NAME") = None
    """auto, cpu, cuda, cuda:1, ..."""
    offload: plain(Literal["none", "model", "group"] | None) = None
    """As in `kvlock edit`."""
    tile_vae: bool = False
    """Decode tile by tile, in less memory; moves pixels a little."""
    memory_check: bool = True
    """Refuse where there is no room, by an estimate."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace files that exist."""
    accept_changes: bool = False
    """Go on although the clip, the mask or the weights changed."""

    def run(self) -> None:
        """Read the latents, decode, write."""
        from kvlock.editing.destination import KEPT, RUN, kept_for
        from kvlock.editing.edit import decoded, load, plan
        from kvlock.editing.keeping import read_kept
        from kvlock.editing.outputs import read_run, write_claimed

        out = Path(self.out)
        with kept_for(out, self.overwrite) as work:
            job, notes = read_run(work / KEPT / RUN, self.accept_changes)
            planned = plan(replace(job, **self._given()))
            say([*notes, *planned.notes])
            model = load(planned)
            edits = decoded(planned, model, read_kept(work, model.device))
            written = write_claimed(edits, out, work, self.overwrite)
        say_written(planned, written)

    def _given(self) -> dict:
        given = {"device": self.device, "offload": self.offload}
        given |= {"tile_vae": True} if self.tile_vae else {}
        given |= {} if self.memory_check else {"memory_check": False}
        return {name: value for name, value in given.items() if value is not None}
