"""The plan format: what fits is found, what does not is named with what to type. No TensorRT."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bitheads import BitheadsError, PlanError
from bitheads.engine.bundle import Artifact, graph_sha256
from bitheads.engine.device.plan import PlanInfo, find_plan, read_plan, rebuild_command, write_plan
from bitheads.engine.device.profile import Profile, choose_profile, max_rows

ROOT = Path(__file__).parents[2]
GRAPH = hashlib.sha256(b"graph").hexdigest()
DATA = b"serialized engine" * 100
ONE, SHORT, LONG = (
    Profile((1, 1), (1, 32), (1, 512)),
    Profile((1, 1), (64, 32), (256, 32)),
    Profile((1, 1), (4, 512), (16, 512)),
)
REBUILD = "bitheads plan --bundle "


def make_info(data: bytes = DATA, **changes: Any) -> PlanInfo:
    values: dict[str, Any] = {
        "graph_sha256": GRAPH,
        "flavour": "tensorrt-rtx",
        "version": "1.7.1.116",
        "compute_capabilities": ("8.6", "8.9", "12.0"),
        "precision": "fp16",
        "profiles": (ONE, SHORT, LONG),
        "inputs": {"input_ids": "int64", "attention_mask": "int64"},
        "outputs": {"hidden_2": "float16", "hidden_3": "float16"},
        "plan_bytes": len(data),
        "plan_sha256": hashlib.sha256(data).hexdigest(),
        "options": {"workspace_bytes": 1 << 30, "tf32": False},
    }
    return PlanInfo(**{**values, **changes})


def find(bundle: Path, **changes: str) -> Any:
    wanted = {
        "graph_sha256": GRAPH,
        "flavour": "tensorrt-rtx",
        "version": "1.7.1.116",
        "compute_capability": "8.9",
    }
    return find_plan(bundle, **{**wanted, **changes})


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder with one plan."""
    write_plan(tmp_path, make_info(), DATA)
    return tmp_path


def metadata_path(bundle: Path) -> Path:
    (path,) = (bundle / "plans").glob("*.json")
    return path


def plan_path(bundle: Path) -> Path:
    (path,) = (bundle / "plans").glob("*.plan")
    return path


def test_what_was_written_is_found(bundle: Path) -> None:
    plan = find(bundle)
    assert plan.info == make_info()
    assert plan.profiles == (ONE, SHORT, LONG)
    assert plan.read_bytes() == DATA
    name = f"encoder.{GRAPH[:8]}.tensorrt-rtx-1.7.1.116.sm_86+sm_89+sm_120.plan"
    assert plan.path == bundle / "plans" / name
    assert plan.path.read_bytes() == DATA, "other tools load the file as it is"
    assert sorted(p.suffix for p in plan.path.parent.iterdir()) == [".json", ".plan"]


def test_the_format_does_not_change_by_accident(bundle: Path) -> None:
    """Golden bytes: whoever changes them raises FORMAT_VERSION."""
    text = metadata_path(bundle).read_bytes()
    expected = "c4e05d7166b2a4b9ed1180c9ad7a2183eca1126ded008de520f106b5e4c465ed"
    assert hashlib.sha256(text).hexdigest() == expected, text.decode()


def test_any_buffer_can_be_written(tmp_path: Path) -> None:
    """TensorRT hands out a buffer of its own, which is not copied."""
    assert write_plan(tmp_path, make_info(), memoryview(bytearray(DATA))).read_bytes() == DATA


def test_data_of_another_plan_is_not_written(tmp_path: Path) -> None:
    for data in (b"", DATA[:-1], DATA[:-1] + b"x"):
        with pytest.raises(PlanError, match=r"got \d+ bytes, .* as the metadata says"):
            write_plan(tmp_path, make_info(), data)
    assert not (tmp_path / "plans").exists()


def test_the_same_name_is_replaced(bundle: Path) -> None:
    write_plan(bundle, make_info(b"new"), b"new")
    assert find(bundle).read_bytes() == b"new"


def test_the_last_written_of_several_is_taken(bundle: Path) -> None:
    only = ("8.9",)
    write_plan(bundle, make_info(b"one", compute_capabilities=only), b"one")
    paths = sorted((bundle / "plans").glob("*.plan"), key=lambda path: path.stat().st_size)
    for newest, expected in ((paths[0], b"one"), (paths[1], DATA)):
        for path in paths:
            os.utime(path, (1, 2 if path == newest else 1))
        assert find(bundle).read_bytes() == expected
    assert find(bundle, compute_capability="8.6").read_bytes() == DATA


@pytest.mark.parametrize("step", ["plan", "metadata"])
def test_a_failed_write_leaves_nothing_half_written(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Neither a part of a file, nor the metadata of one plan beside another."""
    fsync = os.fsync
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == ("plan", "metadata").index(step) + 1:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr("bitheads.engine.files.whole_file.os.fsync", full)
    with pytest.raises(PlanError, match=r"cannot be written .*No space left.* with 3 bytes free"):
        write_plan(bundle, make_info(b"new"), b"new")
    assert [path.suffix for path in (bundle / "plans").iterdir()] == [".plan"]
    assert plan_path(bundle).read_bytes() == (DATA if step == "plan" else b"new")
    with pytest.raises(PlanError, match="beside it, which says what it is for"):
        find(bundle)


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "plans").write_text("a file")
    with pytest.raises(PlanError, match="cannot be written"):
        write_plan(tmp_path, make_info(), DATA)


def test_no_plan_says_what_to_type(tmp_path: Path) -> None:
    folder = tmp_path / "my bundle"
    with pytest.raises(PlanError) as error:
        find(folder)
    assert str(error.value) == (
        f"bundle {folder}: no plan for tensorrt-rtx 1.7.1.116, compute capability 8.9, graph "
        f"{GRAPH[:8]}. There are none.\nType: {REBUILD}'{folder}' --plan tensorrt-rtx "
        "--plan-capabilities 8.9"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"graph_sha256": "f" * 64}, f"graph_sha256 is {GRAPH[:12]}..., expected ffffffffffff"),
        ({"flavour": "tensorrt"}, "flavour is tensorrt-rtx, expected tensorrt."),
        ({"version": "1.7.1.117"}, "version is 1.7.1.116, expected 1.7.1.117."),
        (
            {"compute_capability": "9.0"},
            "it is for compute capability 8.6, 8.9, 12.0, expected 9.0.",
        ),
        (
            {"version": "1.8", "compute_capability": "8.0"},
            "version is 1.7.1.116, expected 1.8; it is for compute capability",
        ),
    ],
)
def test_a_plan_that_does_not_fit_says_why(
    bundle: Path, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(PlanError) as error:
        find(bundle, **changes)
    first, why, fix = str(error.value).splitlines()
    assert "no plan for" in first
    assert message in why
    assert plan_path(bundle).name in why
    capability = changes.get("compute_capability", "8.9")
    # TensorRT-RTX is not made for 9.0.
    is_rtx = "flavour" not in changes and capability != "9.0"
    options = f"-rtx --plan-capabilities {capability}" if is_rtx else ""
    assert fix == f"Type: {REBUILD}{bundle} --plan tensorrt{options}"


def test_every_misfit_is_listed_and_none_hides_a_plan_that_fits(bundle: Path) -> None:
    write_plan(bundle, make_info(compute_capabilities=("8.9",), version="1.6"), DATA)
    (bundle / "plans" / "stray.plan").write_bytes(DATA)
    assert find(bundle).read_bytes() == DATA
    with pytest.raises(PlanError) as error:
        find(bundle, compute_capability="7.5")
    lines = str(error.value).splitlines()
    assert len(lines) == 5
    assert "no stray.json beside it" in str(error.value)


def test_an_unknown_flavour_is_an_error(bundle: Path) -> None:
    with pytest.raises(PlanError, match="flavour: got 'tensorrt_rtx', expected one of"):
        find(bundle, flavour="tensorrt_rtx")


@pytest.mark.parametrize("keep", [0, 1, 16, len(DATA) - 1])
def test_a_truncated_plan_is_found_before_it_is_read(bundle: Path, keep: int) -> None:
    plan = find(bundle)
    plan.path.write_bytes(DATA[:keep])
    expected = f"got {keep} bytes, expected {len(DATA)}"
    for read in (plan.read_bytes, lambda: find(bundle)):
        with pytest.raises(PlanError, match=expected) as error:
            read()
        assert REBUILD + str(bundle) in str(error.value)


def test_a_plan_that_grew_is_not_read_in_full(bundle: Path) -> None:
    plan = find(bundle)
    with plan.path.open("ab") as file:
        file.truncate(1 << 40)  # sparse: takes no space, but no memory holds it
    with pytest.raises(PlanError, match=f"got more bytes, expected {len(DATA)}"):
        plan.read_bytes()


def test_one_flipped_bit_of_the_plan_is_found(bundle: Path) -> None:
    plan = find(bundle)
    for position in (0, 1, len(DATA) // 2, len(DATA) - 1):
        spoiled = bytearray(DATA)
        spoiled[position] ^= 1
        plan.path.write_bytes(spoiled)
        with pytest.raises(PlanError, match="was changed: got sha256") as error:
            find(bundle).read_bytes()
        assert "--plan tensorrt-rtx --plan-capabilities 8.6,8.9,12.0" in str(error.value)


def test_a_plan_that_vanished_is_an_error(bundle: Path) -> None:
    plan = find(bundle)
    plan.path.unlink()
    with pytest.raises(PlanError, match="cannot be read"):
        plan.read_bytes()
    with pytest.raises(PlanError, match="There are none"):
        find(bundle)


def test_one_flipped_bit_of_the_metadata_is_found_anywhere(bundle: Path) -> None:
    """Or means the same: no bit makes another plan of it, and no other error comes out."""
    path, text = metadata_path(bundle), metadata_path(bundle).read_bytes()
    messages = []
    for position in range(len(text)):
        for bit in (1, 32):
            spoiled = bytearray(text)
            spoiled[position] ^= bit
            path.write_bytes(spoiled)
            try:
                plan = read_plan(plan_path(bundle))
            except PlanError as error:
                messages.append(str(error))
            else:
                assert plan.info == make_info(), f"byte {position}"
    assert len(messages) > len(text)
    assert all(plan_path(bundle).name in m and REBUILD in m for m in messages)


@pytest.mark.parametrize("keep", [0, 1, 100, -2])
def test_truncated_metadata_is_found(bundle: Path, keep: int) -> None:
    path = metadata_path(bundle)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(PlanError, match="cannot be read"):
        read_plan(plan_path(bundle))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format_version": 1}',
        b'{"format_version": ' + b"9" * 10_000 + b"}",
        b" " * (2 << 20),
    ],
    ids=range(10),
)
def test_metadata_that_is_none_is_an_error(bundle: Path, text: bytes) -> None:
    metadata_path(bundle).write_bytes(text)
    with pytest.raises(PlanError, match="cannot be read"):
        read_plan(plan_path(bundle))


def rewrite(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Edits the metadata, and its hash, as someone does who means it."""
    path = metadata_path(bundle)
    content = json.loads(path.read_text())
    del content["sha256"]
    change(content)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**content, "sha256": digest}))


def test_the_helper_writes_what_is_read(bundle: Path) -> None:
    rewrite(bundle, lambda content: None)
    assert find(bundle).info == make_info()


def test_an_edit_without_its_hash_is_found(bundle: Path) -> None:
    path = metadata_path(bundle)
    path.write_text(path.read_text().replace("1.7.1.116", "1.7.1.117"))
    with pytest.raises(
        PlanError, match=r"was edited: got sha256 .*, expected .*Type: bitheads plan"
    ):
        read_plan(plan_path(bundle))


@pytest.mark.parametrize("version", [0, 3, "1", None, [1], True])
def test_another_format_version_is_an_error(bundle: Path, version: Any) -> None:
    rewrite(bundle, lambda content: content.update(format_version=version))
    expected = r"got format version .*, expected one of \(1, 2\)\. Type: bitheads"
    with pytest.raises(PlanError, match=expected):
        read_plan(plan_path(bundle))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("graph_sha256", "../../etc/passwd"),
        ("graph_sha256", None),
        ("flavour", "tensorflow"),
        ("flavour", []),
        ("version", "1/../.."),
        ("version", 1.7),
        ("compute_capabilities", []),
        ("compute_capabilities", "8.6"),
        ("compute_capabilities", ["8.6", 8.9]),
        ("compute_capabilities", 8),
        ("precision", "int4"),
        ("precision", "fp8"),
        ("profiles", []),
        ("profiles", {}),
        ("profiles", [{"min": [1, 1], "opt": [1, 1]}]),
        ("profiles", [{"min": [1, 1], "opt": [2, 2], "max": [1, 2]}]),
        ("profiles", [{"min": [0, 1], "opt": [2, 2], "max": [3, 2]}]),
        ("profiles", [{"min": [1], "opt": [2], "max": [3]}]),
        ("profiles", [{"min": [1, 1], "opt": [2, 2], "max": [3, 2.5]}]),
        ("profiles", [{"min": [True, 1], "opt": [2, 2], "max": [3, 3]}]),
        ("inputs", {}),
        ("inputs", ["input_ids"]),
        ("inputs", {"input_ids": 64}),
        ("outputs", None),
        ("plan_bytes", "1700"),
        ("plan_bytes", -1),
        ("plan_bytes", True),
        ("plan_bytes", len(DATA) + 1),
        ("plan_sha256", "0"),
        ("unknown", 1),
        ("compatibility", ["version"]),
    ],
)
def test_metadata_that_makes_no_sense_is_an_error(bundle: Path, name: str, value: Any) -> None:
    rewrite(bundle, lambda content: content.update({name: value}))
    with pytest.raises(PlanError, match=r"(?s)encoder\..*Type: bitheads plan"):
        read_plan(plan_path(bundle))
    with pytest.raises(PlanError, match="no plan for"):
        find(bundle)


@pytest.mark.parametrize("name", ["graph_sha256", "profiles", "outputs", "plan_bytes", "options"])
def test_metadata_with_a_gap(bundle: Path, name: str) -> None:
    rewrite(bundle, lambda content: content.pop(name))
    if name == "options":  # for people to read
        assert find(bundle).info == replace(make_info(), options={})
    else:
        with pytest.raises(PlanError, match="is malformed"):
            read_plan(plan_path(bundle))


def test_a_renamed_plan_is_an_error(bundle: Path) -> None:
    """The name says what a plan is for, and people go by it."""
    for path in sorted((bundle / "plans").iterdir()):
        path.rename(path.with_name(path.name.replace("sm_120", "sm_121")))
    with pytest.raises(PlanError, match=r"got this name, expected encoder.*sm_120\.plan"):
        read_plan(plan_path(bundle))


def test_the_smallest_profile_that_fits_is_chosen() -> None:
    profiles = (LONG, SHORT, ONE)
    assert choose_profile(profiles, 1, 1) == 2
    assert choose_profile(profiles, 1, 512) == 2
    assert choose_profile(profiles, 2, 20) == 1, "the shorter of two as large"
    assert choose_profile((SHORT, LONG), 2, 20) == 0
    assert choose_profile(profiles, 17, 32) == 1
    assert choose_profile(profiles, 2, 33) == 0


@pytest.mark.parametrize(("rows", "seq"), [(17, 33), (257, 1), (1, 513), (0, 1), (1, 0)])
def test_a_batch_that_fits_no_profile_says_what_to_type(rows: int, seq: int) -> None:
    with pytest.raises(PlanError) as error:
        choose_profile((ONE, SHORT, LONG), rows, seq)
    assert f"got a batch of {rows} rows of {seq} tokens" in str(error.value)
    assert "max_batch_tokens" in str(error.value)
    assert str(error.value).endswith(
        "bitheads plan --bundle BUNDLE --plan-profile 1x1,1x32,1x512 "
        f"--plan-profile 1x1,64x32,256x32 --plan-profile 1x1,4x512,16x512 "
        f"--plan-profile 1x1,{rows}x{seq},{rows}x{seq}"
    )


def test_where_to_split_a_batch() -> None:
    profiles = (ONE, SHORT, LONG)
    assert [max_rows(profiles, seq) for seq in (1, 32, 33, 512)] == [256, 256, 16, 16]
    assert max_rows((ONE,), 512) == 1
    with pytest.raises(PlanError, match="got a batch of 1 rows of 513 tokens"):
        max_rows(profiles, 513)


def test_a_graph_is_known_by_its_weights_too() -> None:
    def artifact(text: bytes) -> Artifact:
        return Artifact(len(text), hashlib.sha256(text).hexdigest())

    alone = {"encoder.onnx": artifact(b"graph"), "tokenizer.json": artifact(b"tokenizer")}
    assert graph_sha256(alone) == GRAPH
    weights = [{**alone, "encoder.onnx.data": artifact(data)} for data in (b"a", b"b")]
    assert len({GRAPH, *map(graph_sha256, weights)}) == 3
    assert graph_sha256(weights[0]) == graph_sha256(dict(reversed(weights[0].items())))


def test_the_rebuild_command_survives_the_shell() -> None:
    assert rebuild_command(Path("a b/$x")) == REBUILD + "'a b/$x'"
    assert rebuild_command(Path("b"), "tensorrt", ["9.0"]) == REBUILD + "b --plan tensorrt"


def test_a_plan_error_is_one_of_ours() -> None:
    assert issubclass(PlanError, BitheadsError)


def test_reading_plans_needs_neither_tensorrt_nor_torch() -> None:
    program = (
        "import bitheads.engine.device.plan, sys; "
        "print({m.split('.')[0] for m in sys.modules} & "
        "{'tensorrt', 'tensorrt_rtx', 'torch', 'onnx', 'transformers', 'export'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "set()"
