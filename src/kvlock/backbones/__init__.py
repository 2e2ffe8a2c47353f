"""The only place that sees diffusers: one small file per model family, same members in the same order."""
