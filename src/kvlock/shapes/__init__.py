"""The built-in world: scenes with a known answer, and the small model trained on them."""
