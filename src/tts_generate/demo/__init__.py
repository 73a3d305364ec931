"""The main job, end to end, as `make demo` shows it."""
