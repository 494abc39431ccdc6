"""What libraries put off until their first use is not raced for: some first calls never returned.

More processes: FIRST_CALLS=200.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROCESSES = int(os.environ.get("FIRST_CALLS", "4"))

START = """
import faulthandler, sys, threading
faulthandler.dump_traceback_later(60, exit=True)
sys.setswitchinterval(1e-5)
from bitheads import Engine
texts = [f"Short text number {i}" for i in range(64)]
"""
PROGRAMS = {
    "to NumPy's types": """
import bitheads.engine.sessions.openvino
import openvino
barrier = threading.Barrier(16)
def use():
    barrier.wait()
    openvino.Type.i64.to_dtype()
threads = [threading.Thread(target=use) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
""",
    "in lanes": """
engine = Engine.load(sys.argv[1], "openvino", threads=2)
codes = engine.encode(texts, max_batch_tokens=16).codes
""",
    "in threads": """
found = {}
def use(name):
    with Engine.load(sys.argv[1], name.split()[0], precision="fp32") as engine:
        found[name] = engine.encode(texts, max_batch_tokens=16).codes
names = ["openvino 1", "onnxruntime 1", "openvino 2", "onnxruntime 2"]
threads = [threading.Thread(target=use, args=(name,)) for name in names]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(found) == 4
""",
}


@pytest.mark.parametrize("how", PROGRAMS)
def test_the_first_call_of_a_process_does_not_hang(how: str, tiny_bundle: Path) -> None:
    for _ in range(PROCESSES):
        done = subprocess.run(
            [sys.executable, "-c", START + PROGRAMS[how], str(tiny_bundle)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
