"""Memory stays where it is, however many shapes batches have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOAK = """
import random, sys
from bitheads import Engine

def rss_mb():
    status = open("/proc/self/status").read()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024

draw = random.Random(0)
with Engine.load(sys.argv[1], "openvino", threads=2, precision="fp32") as engine:
    longest = engine.manifest.encoder.max_length - 2
    for calls in (1000, 400):
        for _ in range(calls):  # each is one batch, and most have a shape of their own
            texts = ["word " * draw.randint(1, longest)] * draw.randint(1, 40)
            assert engine.encode(texts, max_batch_tokens=10**6).stats.num_batches == 1
        print(rss_mb())
"""


def test_memory_does_not_grow_with_the_shapes_of_batches(tiny_bundle: Path) -> None:
    """OpenVINO keeps kernels by shape: without a bound, 400 more shapes take 45 MB more."""
    done = subprocess.run(
        [sys.executable, "-c", SOAK, str(tiny_bundle)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    warm_mb, later_mb = (float(line) for line in done.stdout.split())
    assert later_mb - warm_mb < 15, (warm_mb, later_mb)
