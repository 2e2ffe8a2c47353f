"""The paper: torch and the standard library, no files, no model names."""
