"""Public benchmarks, as their archives lie on disk, to a kvlock manifest: one file a benchmark."""
