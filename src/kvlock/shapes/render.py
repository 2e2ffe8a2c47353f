"""Scenes to pixels: video uint8 [F, H, W, 3] and masks bool [F, H, W], antialiased, exact and deterministic."""

import math

import numpy as np

from kvlock.shapes.scene import COLOURS, Background, Scene, SceneEdit, Shape

TAU = 2 * math.pi
EDGE = 1.8  # pixels that an outline takes to pass from shape to background, as through a lens


def render_scene(scene: Scene, frames: int, height: int, width: int) -> np.ndarray:
    """The scene as a clip: uint8 [F, H, W, 3]."""
    x, y = _pixel_grid(height, width)
    times = np.linspace(0, 1, frames) if frames > 1 else np.zeros(1)
    clip = np.stack([_render_frame(scene, float(t), x, y, height) for t in times])
    return np.clip(np.rint(clip), 0, 255).astype(np.uint8)


def render_mask(edit: SceneEdit, frames: int, height: int, width: int) -> np.ndarray:
    """Where the edit may happen: bool [F, H, W], the disc that holds every kind of shape, antialiasing included.

    Outside of it the source clip and the true edited clip are equal pixel for pixel.
    """
    x, y = _pixel_grid(height, width)
    times = np.linspace(0, 1, frames) if frames > 1 else np.zeros(1)
    centres = [edit.disc.centre(float(t)) for t in times]
    return np.stack(
        [np.hypot(x - cx, y - cy) < edit.disc.radius + 1 / height for cx, cy in centres]
    )


def render_subject(scene: Scene, frames: int, height: int, width: int) -> np.ndarray:
    """Where the scene's first shape is: bool [F, H, W], its own outline; no shape covers it."""
    x, y = _pixel_grid(height, width)
    times = np.linspace(0, 1, frames) if frames > 1 else np.zeros(1)
    shape = scene.shapes[0]
    away = [(x - cx, y - cy) for cx, cy in (shape.centre(float(t)) for t in times)]
    radius = shape.radius
    return np.stack([signed_distance(shape.kind, u / radius, v / radius) < 0 for u, v in away])


def _pixel_grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    return (np.arange(width)[None, :] + 0.5) / height, (np.arange(height)[:, None] + 0.5) / height


def _render_frame(
    scene: Scene, time: float, x: np.ndarray, y: np.ndarray, height: int
) -> np.ndarray:
    frame = _render_background(scene.background, time, x, y)
    for shape in reversed(scene.shapes):
        cx, cy = shape.centre(time)
        u, v = (x - cx) / shape.radius, (y - cy) / shape.radius
        coverage = np.clip(
            0.5 - signed_distance(shape.kind, u, v) * shape.radius * height / EDGE, 0, 1
        )[..., None]
        frame = (1 - coverage) * frame + coverage * _shaded(shape, u, v)
    return frame


def _shaded(shape: Shape, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    light = 1 - 0.12 * np.clip(u + v, -1.5, 1.5)[..., None]
    return np.asarray(COLOURS[shape.colour], dtype=float) * light


def _render_background(
    background: Background, time: float, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    px, py = x - background.pan[0] * time, y - background.pan[1] * time
    waves = [a * np.sin(TAU * (fx * px + fy * py + phase)) for fx, fy, phase, a in background.waves]
    if background.pattern == "checks":
        value = waves[0] * waves[1] / 28
    elif background.pattern == "dots":
        value = np.maximum(waves[0] + waves[1], 0) * 0.9 - 10
    else:
        value = sum(waves)
    return np.asarray(background.base) + value[..., None] * (
        0.75 + 0.25 * np.asarray(background.tint)
    )


def signed_distance(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Distance to the outline in units of the shape's radius, negative inside; v points down."""
    match kind:
        case "circle":
            return np.hypot(u, v) - 0.88
        case "square":
            return _box(u, v, 0.69, 0.69)
        case "cross":
            return np.minimum(_box(u, v, 0.94, 0.29), _box(u, v, 0.29, 0.94))
        case "triangle":
            return _polygon(u, v, [(math.sin(a), -math.cos(a)) for a in (0, TAU / 3, 2 * TAU / 3)])
        case "star":
            radii = [(1.0, 0.42)[i % 2] for i in range(10)]
            return _polygon(
                u,
                v,
                [
                    (r * math.sin(i * TAU / 10), -r * math.cos(i * TAU / 10))
                    for i, r in enumerate(radii)
                ],
            )
    raise ValueError(f"shape kind {kind!r} is unknown")


def _box(u: np.ndarray, v: np.ndarray, half_width: float, half_height: float) -> np.ndarray:
    dx, dy = np.abs(u) - half_width, np.abs(v) - half_height
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0)


def _polygon(u: np.ndarray, v: np.ndarray, corners: list[tuple[float, float]]) -> np.ndarray:
    """Distance to the nearest edge; the sign by the even-odd rule."""
    u, v = np.broadcast_arrays(u, v)
    distance, inside = np.full(u.shape, np.inf), np.zeros(u.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1]):
        ex, ey = bx - ax, by - ay
        t = np.clip(((u - ax) * ex + (v - ay) * ey) / (ex * ex + ey * ey), 0, 1)
        distance = np.minimum(distance, np.hypot(u - ax - t * ex, v - ay - t * ey))
        crosses = (ay > v) != (by > v)
        inside ^= crosses & (u < ex * (v - ay) / np.where(by == ay, 1, ey) + ax)
    return np.where(inside, -distance, distance)
