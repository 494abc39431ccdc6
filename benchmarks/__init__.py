"""Measurements, a folder each; see `python -m benchmarks --help`.

`routines` lists them. What they share:

    options     command-line options that several have, and the command a result is stored under
    record      stored results (results/*.json)
    inputs      what is measured on: texts, shapes of encoders, seeded weights
    contenders  what several of them compare
    figures     turns, percentiles, digits, multiply-adds
    processes   measuring in a process of its own, memory of a process
    pages       the tables in README.md and docs
"""

import os
from pathlib import Path

ROOT = Path(__file__).parent.parent
"""The repository's folder."""

# NumPy's BLAS reads this once, when NumPy is first imported: where it stands beside kernels of one
# thread, it has one, too.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
