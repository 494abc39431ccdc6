"""Predicted times on known GPUs: a model, no measurement."""
