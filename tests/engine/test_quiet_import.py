"""Libraries are imported without what they report, also where the user has no home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARIES = """
import json, os, socket, sys
def refuse(*arguments, **options):
    print("called", arguments, flush=True)
    raise OSError
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
before = dict(os.environ)
from bitheads.engine.process.quiet_import import import_quietly
for name in ("openvino", "openvino_tokenizers", "nncf", "onnxruntime"):
    assert import_quietly(name) is sys.modules[name]
assert dict(os.environ) == before
assert "openvino_telemetry" not in sys.modules
print(len(os.listdir("/proc/self/task")), "threads")
"""


def test_nothing_is_reported(tmp_path: Path) -> None:
    """OpenVINO's and NNCF's is a module, ONNX Runtime's a thread of its own."""
    plain = {"HOME": str(tmp_path), "PATH": "", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIBRARIES],
        env=plain,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    alone = subprocess.run(
        [sys.executable, "-c", "import numpy, os; print(len(os.listdir('/proc/self/task')))"],
        env=plain,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{alone.stdout.strip()} threads\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_program_that_imports_them_itself(when: str, tmp_path: Path) -> None:
    program = """
import sys
before = sys.argv[1] == "before"
if before:
    import openvino
    own = sys.modules["openvino_telemetry"]
import bitheads.engine.sessions.openvino
if before:
    assert sys.modules["openvino_telemetry"] is own
import openvino, openvino_telemetry
assert openvino.Core().available_devices
assert openvino_telemetry.Telemetry
"""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, when],
        env={"HOME": str(tmp_path), "PATH": "", "CI": "1"},
        check=True,
    )


@pytest.fixture
def nobody() -> list[str]:
    """What to put before a command to run it as a user without a home, whom nothing names."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can be another user, by setpriv of the package util-linux")
    user = ["--reuid=54321", "--regid=54321", "--clear-groups"]
    # It may read everything, as it would where files are installed for all; write it may not.
    user += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    command = ["setpriv", *user, "env", "-i", "PYTHONDONTWRITEBYTECODE=1"]
    tried = subprocess.run(
        [*command, sys.executable, "-c", ""], capture_output=True, text=True, check=False
    )
    if tried.returncode != 0:
        pytest.skip(f"setpriv cannot start Python as another user: {tried.stderr}")
    return command


def test_a_user_without_a_home(nobody: list[str], tiny_bundle: Path) -> None:
    program = """
import os, sys
from pathlib import Path
try:
    Path.home()
except RuntimeError:
    print("no home")
from bitheads import Engine
import bitheads.engine.commands.predict, bitheads.engine.commands.encode
import bitheads.engine.commands.backfill, bitheads.engine.serve.app
from bitheads.engine.process.quiet_import import import_quietly
for name in ("openvino", "openvino_tokenizers", "nncf", "onnxruntime"):
    import_quietly(name)
for backend in ("auto", "openvino", "onnxruntime"):
    with Engine.load(sys.argv[1], backend) as engine:
        print(len(engine.encode(["a text"])))
"""
    done = subprocess.run(
        [*nobody, sys.executable, "-c", program, str(tiny_bundle)],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("no home\n1\n1\n1\n", 0), done.stderr
