"""The libraries that are compared: one module each, whose `make` returns a Runner."""
