"""Offline: a trained encoder becomes a bundle. `python -m export.build --help`."""
