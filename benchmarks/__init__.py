"""Measurements; see `python -m benchmarks --help`."""

import os

# NumPy's BLAS reads this once, when NumPy is first imported: where it stands beside kernels of one
# thread, it has one, too.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
