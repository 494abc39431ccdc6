"""The roofline model, stored: computed in a moment on any machine."""

from __future__ import annotations

import argparse

from benchmarks import record
from benchmarks.roofline import model


def run(options: argparse.Namespace) -> None:
    """Stores the model's figures with everything they assume."""
    record.write("roofline", "python -m benchmarks roofline", model.compute())
