"""Memory stays where it is, however many texts of however many lengths there are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOAK = """
import sys
from engine import Engine

def rss_mb():
    status = open("/proc/self/status").read()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024

# A budget of one text a batch: each length, and each number of rows of one, is a shape of its own.
with Engine.load(sys.argv[1], "openvino", threads=2, precision="fp32") as engine:
    longest = engine.manifest.encoder.max_length - 2
    grown = []
    for rows in range(1, 41):
        for length in range(1, longest, 4):
            engine.encode(["word " * length] * rows, max_batch_tokens=10**6)
        grown.append(rss_mb())
    print(*grown)
"""


def test_memory_does_not_grow_with_the_shapes_of_batches(tiny_bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SOAK, str(tiny_bundle)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rss_mb = [float(word) for word in done.stdout.split()]
    assert rss_mb[-1] - rss_mb[19] < 12, rss_mb
