"""Pooling and packing at every level, beside a copy of the input."""
