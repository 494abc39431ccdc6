"""Command lines: thin shells over the engine and its jobs."""
