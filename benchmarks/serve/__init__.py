"""The server under load from another process."""
