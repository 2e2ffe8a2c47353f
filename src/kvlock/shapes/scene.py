"""Scenes of the built-in world: frozen records that can be drawn from a seed, edited, and rendered.

Coordinates are in units of the frame's height, time runs from 0 to 1 over the clip, so that a scene
can be rendered at any size and frame count.
"""

import math
import random
from dataclasses import dataclass, replace

SIZE = 96  # the world's clips: square, in pixels, and this many frames
FRAMES = 9
COLOURS = {
    "red": (215, 45, 45),
    "orange": (245, 145, 30),
    "yellow": (245, 225, 60),
    "green": (45, 165, 70),
    "cyan": (60, 205, 220),
    "blue": (50, 80, 215),
    "purple": (140, 60, 185),
    "pink": (245, 145, 195),
}
KINDS = ("circle", "square", "triangle", "star", "cross")
PATTERNS = ("gradient", "stripes", "checks", "dots", "noise")
NOTHING = "an empty background"
EDITS = ("recolour", "reshape", "replace", "remove", "add")


@dataclass(frozen=True)
class Shape:
    """One shape on a quadratic Bezier path; `radius` is that of the disc that holds every kind of shape."""

    kind: str
    colour: str
    radius: float
    path: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]

    def centre(self, time: float) -> tuple[float, float]:
        """(x, y) at `time` in [0, 1]."""
        (ax, ay), (bx, by), (cx, cy) = self.path
        a, b, c = (1 - time) ** 2, 2 * time * (1 - time), time**2
        return a * ax + b * bx + c * cx, a * ay + b * by + c * cy


@dataclass(frozen=True)
class Background:
    """A texture `pattern`, panned by `pan` (x, y) over the clip.

    `waves` holds (frequency x, frequency y, phase, amplitude) of the sinusoids it is made of, frequencies in
    cycles per frame height.
    """

    pattern: str
    base: tuple[float, float, float]
    tint: tuple[float, float, float]
    waves: tuple[tuple[float, float, float, float], ...]
    pan: tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """One or two shapes over a background; the first shape is the subject, the one that an edit touches."""

    shapes: tuple[Shape, ...]
    background: Background

    @property
    def prompt(self) -> str:
        """The caption: kinds and colours in the order of `shapes`; it does not describe the background."""
        return _caption(self.shapes) or NOTHING


@dataclass(frozen=True)
class SceneEdit:
    """An edit whose answer is known: `target` rendered is the true edited clip.

    `disc` is the subject's place. It holds every kind of shape, so a mask made from it does not tell the answer.
    Both prompts begin with what is there, be it nothing.
    """

    kind: str
    source: Scene
    target: Scene
    disc: Shape

    @property
    def source_prompt(self) -> str:
        """What the source shows."""
        return _caption(self.source.shapes, nothing_first=self.kind == "add")

    @property
    def prompt(self) -> str:
        """What the edited clip shows."""
        return _caption(self.target.shapes, nothing_first=self.kind == "remove")


def recolour(scene: Scene, colour: str) -> SceneEdit:
    """The subject in another colour."""
    return _change(scene, "recolour", colour=colour)


def reshape(scene: Scene, kind: str) -> SceneEdit:
    """The subject as another kind of shape."""
    return _change(scene, "reshape", kind=kind)


def replace_shape(scene: Scene, kind: str, colour: str) -> SceneEdit:
    """The subject replaced by another kind of shape in another colour."""
    return _change(scene, "replace", kind=kind, colour=colour)


def remove(scene: Scene) -> SceneEdit:
    """The subject taken away; what it hid is seen."""
    return SceneEdit("remove", scene, replace(scene, shapes=scene.shapes[1:]), scene.shapes[0])


def add(scene: Scene) -> SceneEdit:
    """The subject put into the scene that lacks it."""
    return SceneEdit("add", replace(scene, shapes=scene.shapes[1:]), scene, scene.shapes[0])


def _caption(shapes: tuple[Shape, ...], nothing_first: bool = False) -> str:
    words = [f"{_article(s.colour)} {s.colour} {s.kind}" for s in shapes]
    return " and ".join([NOTHING] * nothing_first + words)


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _change(scene: Scene, edit: str, **changes: str) -> SceneEdit:
    subject = replace(scene.shapes[0], **changes)
    return SceneEdit(edit, scene, replace(scene, shapes=(subject, *scene.shapes[1:])), subject)


def random_scene(seed: int, aspect: float = 1.0) -> Scene:
    """The scene that belongs to `seed`; `aspect` is width / height of the frame."""
    rng = random.Random(f"scene {seed}")
    shapes = [_random_shape(rng, aspect)]
    if rng.random() < 0.5:
        second = next(
            (s for s in (_random_shape(rng, aspect) for _ in range(40)) if _differ(s, shapes[0])),
            None,
        )
        shapes += [second] if second else []
    return Scene(tuple(shapes), _random_background(rng))


def random_edit(seed: int, kind: str | None = None, aspect: float = 1.0) -> SceneEdit:
    """The edit that belongs to `seed`; without `kind` the five kinds take turns, so that any range is balanced."""
    kind = kind or EDITS[seed % len(EDITS)]
    scene = random_scene(seed, aspect)
    rng = random.Random(f"edit {seed}")
    subject = scene.shapes[0]
    other_kind = rng.choice([k for k in KINDS if k != subject.kind])
    other_colour = rng.choice([c for c in COLOURS if c not in {s.colour for s in scene.shapes}])
    match kind:
        case "recolour":
            return recolour(scene, other_colour)
        case "reshape":
            return reshape(scene, other_kind)
        case "replace":
            return replace_shape(scene, other_kind, other_colour)
        case "remove":
            return remove(scene)
        case "add":
            return add(scene)
    raise ValueError(f"edit kind {kind!r} is unknown; expected one of {', '.join(EDITS)}")


def _random_shape(rng: random.Random, aspect: float) -> Shape:
    radius = rng.uniform(0.14, 0.21)

    def point() -> tuple[float, float]:
        return rng.uniform(radius, aspect - radius), rng.uniform(radius, 1 - radius)

    start, end = point(), point()
    reach = math.dist(start, end)
    share = min(1.0, 0.35 / reach) if reach else 1.0
    end = (start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1]))
    bend = rng.choice([0.0, rng.uniform(-0.12, 0.12)])
    middle = ((start[0] + end[0]) / 2 + bend, (start[1] + end[1]) / 2 - bend)
    return Shape(rng.choice(KINDS), rng.choice(list(COLOURS)), radius, (start, middle, end))


def _differ(a: Shape, b: Shape) -> bool:
    gap = a.radius + b.radius
    return a.colour != b.colour and all(
        math.dist(a.centre(t / 8), b.centre(t / 8)) > gap for t in range(9)
    )


def _random_background(rng: random.Random) -> Background:
    pattern = rng.choice(PATTERNS)
    base = tuple(rng.uniform(95, 165) for _ in range(3))
    tint = tuple(rng.uniform(-1, 1) for _ in range(3))
    angle = rng.uniform(0, math.pi)
    frequency = rng.uniform(2.0, 4.0)
    along = (frequency * math.cos(angle), frequency * math.sin(angle))
    across = (-along[1], along[0])
    if pattern == "gradient":
        waves = ((0.35 * math.cos(angle), 0.35 * math.sin(angle), rng.uniform(0, 1), 38.0),)
    elif pattern == "stripes":
        waves = ((*along, rng.uniform(0, 1), 24.0),)
    elif pattern in ("checks", "dots"):
        along, across = ((fx / 2, fy / 2) for fx, fy in (along, across))
        waves = ((*along, rng.uniform(0, 1), 28.0), (*across, rng.uniform(0, 1), 28.0))
    else:
        waves = tuple(_random_wave(rng) for _ in range(6))
    pan = (rng.uniform(-0.12, 0.12), rng.uniform(-0.12, 0.12)) if rng.random() < 0.5 else (0.0, 0.0)
    return Background(pattern, base, tint, waves, pan)


def _random_wave(rng: random.Random) -> tuple[float, float, float, float]:
    frequency, angle = rng.uniform(0.7, 3.5), rng.uniform(0, 2 * math.pi)
    return frequency * math.cos(angle), frequency * math.sin(angle), rng.uniform(0, 1), 18.0
