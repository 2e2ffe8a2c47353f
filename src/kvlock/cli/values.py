"""What the texts of flags mean: seeds, sizes, folders, counts."""

from pathlib import Path

from kvlock.editing.job import SEEDS_END, Size

MOST_SEEDS = 1000
LONGEST_SIDE = 100_000
MOST = 2**31  # of any other number


def seed_range(text: str) -> range:
    """`3` or `0..2`, both ends included. Raises ValueError for anything else."""
    first, dots, last = text.partition("..")
    sound = first.isdecimal() and (last.isdecimal() if dots else True)
    if not sound or max(len(first), len(last)) > 20 or int(last or first) < int(first):
        raise ValueError(f"--seeds is {text!r}; expected a seed such as 0, or a range such as 0..2")
    if int(last or first) >= SEEDS_END:
        raise ValueError(f"--seeds is {text!r}; expected seeds from 0 to 2**63 - 1")
    if int(last or first) - int(first) >= MOST_SEEDS:
        raise ValueError(f"--seeds is {text!r}; expected at most {MOST_SEEDS} seeds")
    return range(int(first), int(last or first) + 1)


def size_of(text: str) -> Size:
    """(height, width) of --size, or its two words. Raises ValueError for anything else."""
    if text == "auto" or text == "keep":
        return text
    sides = [int(s) for s in text.split("x") if s.isdecimal() and len(s) < 10]
    if text.count("x") != 1 or len(sides) != 2 or not all(0 < s <= LONGEST_SIDE for s in sides):
        raise ValueError(
            f"--size is {text!r}; expected WIDTHxHEIGHT such as 832x480, auto, or keep"
        )
    width, height = sides
    return height, width


def scene_range(first: int, count: int) -> range:
    """Of --seed and --num. Raises ValueError for what cannot be."""
    require_number("--num", count, least=1)
    require_number("--seed", first, least=0)
    return range(first, first + count)


def out_folder(text: str, flag: str = "--out") -> Path:
    """A folder to write to. Raises ValueError for none, and for a file."""
    require_flags({flag: text})
    if Path(text).exists() and not Path(text).is_dir():
        raise ValueError(f"{flag} {text} is a file; expected a folder")
    return Path(text)


def require_number(flag: str, value: int, least: int, most: int = MOST) -> None:
    """Raise ValueError unless it lies in between, both ends included."""
    if not least <= value <= most:
        raise ValueError(f"{flag} is {value}; expected {least} to {most}")


def require_flags(flags: dict[str, str]) -> None:
    """Raise ValueError for one without a value."""
    for flag, value in flags.items():
        if not value.strip():
            raise ValueError(f"{flag} is missing; see --help")
