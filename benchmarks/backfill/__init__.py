"""New tasks over a feature store, beside the bare kernel and beside re-encoding."""
