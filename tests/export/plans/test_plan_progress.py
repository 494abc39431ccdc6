"""A build that is watched, and one that is stopped."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from plan_cases import ROOT, RTX, needs_rtx, plan_files

from bitheads.engine import bundle
from bitheads.export.plans import plan_progress
from bitheads.export.plans.build_plan import build_plan


@needs_rtx
def test_ctrl_c_stops_a_build_and_leaves_nothing(own_deep_bundle: Path) -> None:
    command = [sys.executable, "-m", "bitheads", "plan", "--bundle", str(own_deep_bundle)]
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "building for" in process.stderr.readline()
        time.sleep(1)  # it takes several
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "stopping TensorRT at its next step\ninterrupted: no plan was written\n"
    assert out == ""
    assert plan_files(own_deep_bundle) == []


@needs_rtx
def test_ctrl_c_leaves_the_old_plan(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = bundle.read_manifest(own_bundle)
    build_plan(own_bundle, manifest, RTX)
    before = {path: path.read_bytes() for path in plan_files(own_bundle)}
    wait, calls = plan_progress._wait, []

    def interrupted(thread: Any, monitor: Any) -> None:
        calls.append(thread)
        if len(calls) == 1:
            raise KeyboardInterrupt
        wait(thread, monitor)

    monkeypatch.setattr(plan_progress, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_plan(own_bundle, manifest, RTX)
    assert not calls[0].is_alive()
    assert {path: path.read_bytes() for path in plan_files(own_bundle)} == before


@needs_rtx
def test_an_error_in_the_builders_thread_is_raised(trt: Any) -> None:
    class Broken:
        def build_serialized_network(self, *arguments: Any) -> None:
            raise MemoryError("too large")

    config = SimpleNamespace(progress_monitor=None)
    with pytest.raises(MemoryError, match="too large"):
        plan_progress.build_serialized(trt, Broken(), None, config)


@needs_rtx
def test_progress_is_shown_to_people(
    own_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = bundle.read_manifest(own_bundle)
    for terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        build_plan(own_bundle, manifest, RTX)
        shown = capsys.readouterr().err
        assert bool(re.search(r"plan: \d+ steps \[00:\d\d\], \w+", shown)) == terminal, shown
