"""Without a GPU the tests on it are seen to be skipped, and `make test-gpu` does not pass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys, pytest
code = pytest.main(["-q", "-p", "no:cacheprovider", "tests/gpu"])
print("imported:", sorted({"pycuda", "tensorrt"} & set(sys.modules)))
sys.exit(code)
"""


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    """On a machine with a GPU, too, none is visible."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_they_are_skipped_for_one_reason() -> None:
    done = run(BITHEADS_REQUIRE_GPU="0")
    assert done.returncode == 0, done.stdout + done.stderr
    skipped = re.findall(r"^SKIPPED \[(\d+)\] [^:]+(?::\d+)?: (.*)$", done.stdout, re.MULTILINE)
    assert len({reason for _, reason in skipped}) == 1, done.stdout
    assert skipped[0][1].startswith("needs a GPU: ")
    total = sum(int(count) for count, _ in skipped)
    assert total > 50
    assert re.search(rf"^{total} skipped", done.stdout, re.MULTILINE), done.stdout
    assert "imported: []" in done.stdout


def test_where_a_gpu_is_required_they_do_not_pass() -> None:
    done = run(BITHEADS_REQUIRE_GPU="1")
    assert done.returncode == 4
    assert "needs a GPU: " in done.stdout + done.stderr
