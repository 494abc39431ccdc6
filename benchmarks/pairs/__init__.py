"""Pairs as two texts, beside pairs that are encoded together."""
