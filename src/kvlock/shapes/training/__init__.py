"""Training of the built-in world's models: `train_world` runs its stages."""

from kvlock.shapes.training.stages import STAGES, WEIGHTS, train_world

__all__ = ["STAGES", "WEIGHTS", "train_world"]
