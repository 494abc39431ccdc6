"""The two jobs on a Ray cluster: row for row what one machine makes, whatever is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from random_heads import random_head

from bitheads import Engine
from bitheads.engine.heads.head_file import write_head

ENGINE_TESTS = Path(__file__).parent.parent / "engine"


def test_one_machine_and_ray_make_the_same(own_bundle: Path, tmp_path: Path) -> None:
    """In a process of its own: Ray warns of much, and warnings are errors here."""
    spec = Engine.load(own_bundle, "onnxruntime").spec
    for seed, task in enumerate(("tone", "topic")):
        head = random_head(spec, task=task, seed=seed)
        write_head(head, own_bundle / "heads" / f"{task}.safetensors")
    script = Path(__file__).with_name("kill_ray.py")
    environment = {**os.environ, "PYTHONPATH": str(ENGINE_TESTS), "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, script, own_bundle, tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "2"
