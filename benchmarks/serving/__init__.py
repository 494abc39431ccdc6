"""A server under load, measured from another process."""
