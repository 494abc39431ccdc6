"""`bitheads plan`, and the plan options of `bitheads build`."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plan_cases import ROOT, needs_rtx, plan_files

from bitheads.engine import PlanError, bundle
from bitheads.engine.bundle import graph_sha256
from bitheads.engine.device.plan import find_plan
from bitheads.export import build
from bitheads.export.errors import ExportError
from bitheads.export.plans import tensorrt_module
from bitheads.export.plans.__main__ import main
from bitheads.export.plans.build_plan import resolve_plan
from bitheads.export.plans.plan_config import PlanConfig, add_plan_options, plan_config


@needs_rtx
def test_what_the_error_says_to_type_makes_the_plan(own_bundle: Path, trt: Any) -> None:
    sha256 = graph_sha256(bundle.read_manifest(own_bundle).artifacts)
    with pytest.raises(PlanError) as error:
        find_plan(own_bundle, sha256, "tensorrt-rtx", trt.__version__, "8.9")
    command = shlex.split(str(error.value).splitlines()[-1])
    assert command[:3] == ["Type:", "bitheads", "plan"]
    assert main([*command[3:], "--plan-profile", "1x1,4x16,8x32"]) == 0
    assert find_plan(own_bundle, sha256, "tensorrt-rtx", trt.__version__, "8.9").read_bytes()


@pytest.mark.parametrize(
    ("flavour", "message"),
    [
        ("tensorrt", r"needs the package 'tensorrt'.*pip install 'bitheads\[gpu\]', on a machine"),
        ("tensorrt-rtx", r"needs the package 'tensorrt_rtx'.*pip install 'bitheads\[rtx\]'"),
    ],
)
def test_a_flavour_that_is_absent_is_an_error(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flavour: str,
    message: str,
) -> None:
    monkeypatch.setattr(tensorrt_module, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match=message):
        resolve_plan(PlanConfig(flavour=flavour))
    monkeypatch.setattr(
        "bitheads.export.make_bundle.load_encoder", lambda *given: pytest.fail("it began")
    )
    assert build.main(["--plan", flavour, "--output", str(tmp_path / "out")]) == 1
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("profile", ["", "8x32", "1x1,8x32", "1x1,8x32,4x32", "0x1,1x1,1x1", "axb"])
def test_profiles_that_cannot_be_parsed(profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--bundle", "b", "--plan-profile", profile])
    assert stop.value.code == 2
    assert "expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("none", ()),
        ("version", ("version",)),
        ("ampere+,version", ("version", "ampere+")),
        ("same-compute-capability", ("same-compute-capability",)),
    ],
)
def test_compatibility_as_it_is_typed(given: str, expected: tuple[str, ...]) -> None:
    parser = argparse.ArgumentParser()
    add_plan_options(parser)
    options = vars(parser.parse_args(["--plan-compatibility", given]))
    assert plan_config(options).compatibility == expected


@pytest.mark.parametrize("given", ["", "turing+", "none,version", "version,version"])
def test_compatibility_that_is_none(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--bundle", "b", "--plan-compatibility", given])
    assert stop.value.code == 2
    assert "expected none, or of version, same-compute-capability, ampere+" in (
        capsys.readouterr().err
    )


@needs_rtx
def test_the_command_prints_the_metadata(
    own_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        *("--plan", "tensorrt-rtx", "--plan-capabilities", "8.6,8.9", "--plan-workspace", "4"),
        *("--plan-profile", "1x1,1x16,1x64", "--plan-profile", "1x1,8x64,16x64", "--json"),
    ]
    assert main(["--bundle", str(own_bundle), *options]) == 0
    printed = json.loads(capsys.readouterr().out)
    path = Path(printed.pop("path"))
    assert path.is_file()
    assert printed == json.loads(path.with_suffix(".json").read_text())
    assert printed["compute_capabilities"] == ["8.6", "8.9"]
    assert printed["profiles"][1]["opt"] == [8, 64]
    assert printed["options"]["workspace_bytes"] == 4 << 30


def test_the_command_checks_the_bundle_first(
    own_bundle: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with (own_bundle / bundle.GRAPH).open("ab") as file:
        file.write(b"x")
    assert main(["--bundle", str(own_bundle)]) == 1
    assert "encoder.onnx was changed" in capsys.readouterr().err
    assert main(["--bundle", str(tmp_path / "nothing")]) == 1
    assert "no bundle.json there" in capsys.readouterr().err


def test_the_command_that_built_nothing_failed(
    own_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_module, "find_spec", lambda name: None)
    assert main(["--bundle", str(own_bundle)]) == 1
    shown = capsys.readouterr().err
    assert "pip install 'bitheads[rtx]'" in shown
    assert "error: no plan was built" in shown


@needs_rtx
def test_a_build_puts_the_plan_into_the_bundle(
    tiny_encoder: Callable[[str], Path], few_texts: Path, traced_once: None, tmp_path: Path
) -> None:
    arguments = [
        *("--encoder", str(tiny_encoder("bert")), "--calibration", str(few_texts)),
        *("--output", str(tmp_path / "out"), "--plan-profile", "1x1,4x16,8x32"),
    ]
    assert build.main([*arguments, "--plan", "tensorrt-rtx"]) == 0
    assert [path.suffix for path in plan_files(tmp_path)] == [".json", ".plan"]
    manifest = bundle.read_manifest(tmp_path / "out")
    assert not any("plan" in name for name in manifest.artifacts)
    too_long = [*arguments, "--plan-profile", "1x1,1x65,1x65", "--force"]
    assert build.main(too_long) == 1
    assert len(plan_files(tmp_path)) == 2, "the old bundle stands"


def test_help_says_when_to_change_an_option() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "bitheads", "plan", "--help"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for option in ("--bundle", "--plan-capabilities", "--plan-profile", "--timing-cache", "--json"):
        assert option in done.stdout
