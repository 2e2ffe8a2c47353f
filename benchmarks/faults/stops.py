"""Cases of what comes from outside: kills at random moments, a full disk, no network."""

import json
import random
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.case import Case, perform
from benchmarks.faults.outcome import OUT, RIGHT, Outcome, ended, passed, refused
from benchmarks.faults.world import World, edit_words

FILES = ("edited.mp4", "comparison.mp4", "sheet.png", "trace.json", "trace.png", "run.json")
NEEDED = ("edited.mp4", "trace.json", "run.json")
HELD: list[socket.socket] = []
LEAST_SIZE = 10_000  # bytes that the command's own words may take


def kills(world: World, folder: Path, rng: random.Random) -> Case:
    """A signal at a random moment: all or nothing is there, and the next run makes it all."""
    number = rng.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
    moment = rng.uniform(0, 1.2) * world.seconds
    words = edit_words(world, folder, OUT)

    def judge(outcome: Outcome) -> str:
        flaw = _stopped(outcome, world)
        if flaw != RIGHT:
            return flaw
        return _next(folder, [*words, "--overwrite"], world)

    return Case(words, judge, f"{number.name} after {moment:.2f} s", stop=(number, moment))


def _next(folder: Path, words: list[str], world: World) -> str:
    """The next command makes everything, and leaves nothing of the last one's."""
    again = perform(Case(words, lambda _: RIGHT, ""), folder)
    flaw = passed(again) or _whole(again, world)
    return f"the next command, {words[0]}: {flaw}" if flaw else RIGHT


def _stopped(outcome: Outcome, world: World) -> str:
    if (flaw := ended(outcome, leaves=True)) != RIGHT:
        return flaw
    return _whole(outcome, world) if outcome.out.exists() else RIGHT


def _whole(outcome: Outcome, world: World) -> str:
    """Everything is there, and the clip is the one that an edit without a fault gives."""
    missing = [name for name in NEEDED if not (outcome.out / name).is_file()]
    if missing:
        return f"{missing} are missing"
    if (outcome.out / "edited.mp4").read_bytes() != world.baseline:
        return "edited.mp4 is another"
    for name in ("trace.json", "run.json"):
        json.loads((outcome.out / name).read_text())
    silent = [n for n in FILES if not (outcome.out / n).exists() and n not in outcome.said]
    return f"{silent} are missing in silence" if silent and outcome.code == 0 else RIGHT


def full_disk(world: World, folder: Path, rng: random.Random) -> Case:
    """No file may grow beyond a size: a sentence and nothing, or the edit and what fits beside it."""
    most = max(f.stat().st_size for f in world.run.parent.iterdir())
    size = rng.randrange(LEAST_SIZE, max(most * 5 // 4, LEAST_SIZE + 1))

    def judge(outcome: Outcome) -> str:
        if outcome.code != 2:
            return passed(outcome) or _whole(outcome, world)
        flaw = refused(outcome, str(folder / OUT), leaves=True)
        if flaw != RIGHT or outcome.out.exists():
            return flaw or "something was written"
        is_kept = "kvlock finish" in outcome.complained
        return _next(folder, ["finish", str(folder / OUT)] if is_kept else words, world)

    words = edit_words(world, folder, OUT)
    return Case(words, judge, f"files of {size} bytes at most", file_size=size)


def no_network(world: World, folder: Path, rng: random.Random) -> Case:
    """A hub id that is not in the cache, and nobody who answers: a sentence within seconds."""
    how = rng.choice(("closed", "hangs", "offline", "no name"))
    model = rng.choice(
        ("somebody/some-model", "wan2.1-vace-1.3b", "Wan-AI/Wan2.1-T2V-14B-Diffusers")
    )
    words = ["edit", str(world.clip), "--mask", str(world.mask), "--prompt", "a red cat"]
    words += ["--model", model, "--out", str(folder / OUT), "--no-memory-check", "--device", "cpu"]

    def judge(outcome: Outcome) -> str:
        return refused(outcome, "in the cache")

    return Case(words, judge, f"{model}, {how}", prepare=_without_network(folder, how), seconds=10)


def _without_network(folder: Path, how: str) -> Callable[[], None]:
    def prepare() -> None:
        from huggingface_hub import constants

        constants.HF_HUB_CACHE = str(folder / "cache")
        server = socket.create_server(("127.0.0.1", 0))  # accepts by itself, and says nothing
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        if how == "closed":
            server.close()
        else:
            HELD.append(server)  # open as long as the process lives
        constants.ENDPOINT = "http://nowhere.invalid" if how == "no name" else address
        constants.HF_HUB_OFFLINE = how == "offline"

    return prepare
