"""The library that the workflow's programs share (workflow environment, never the engine's)."""
