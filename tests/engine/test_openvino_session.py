"""What OpenVINO does to the process that it runs in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHILD = """
import gc, signal, sys
from bitheads import Engine

engines = [Engine.load(sys.argv[1], "openvino", threads=1) for _ in range(2)]
while engines:
    engines.pop(0)
    gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_after_engines_that_are_gone(tiny_bundle: Path) -> None:
    """It was a segfault once the first of two was gone before the second."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tiny_bundle)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
