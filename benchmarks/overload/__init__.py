"""A server that is asked for twice what it can do."""
