"""Plans that serve a fleet: what they run on beside what they were built with and for."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from bitheads import PlanError
from bitheads.engine.device.plan import Plan, PlanInfo, find_plan, read_plan, write_plan
from bitheads.engine.device.plan_compatibility import (
    check_compatibility,
    takes_capability,
    takes_version,
)
from bitheads.engine.device.profile import Profile

GRAPH = hashlib.sha256(b"graph").hexdigest()
FLEET = ("version", "ampere+")


def write(bundle: Path, name: str, **changes: Any) -> Plan:
    """A plan whose bytes are its name."""
    values: dict[str, Any] = {
        "graph_sha256": GRAPH,
        "flavour": "tensorrt",
        "version": "10.14.1.48",
        "compute_capabilities": ("8.6",),
        "precision": "fp16",
        "profiles": (Profile((1, 1), (1, 32), (1, 512)),),
        "inputs": {"input_ids": "int64"},
        "outputs": {"hidden_2": "float16"},
        "plan_bytes": len(name),
        "plan_sha256": hashlib.sha256(name.encode()).hexdigest(),
    }
    return write_plan(bundle, PlanInfo(**{**values, **changes}), name.encode())


def find(bundle: Path, version: str = "10.14.1.48", capability: str = "8.6") -> str:
    return find_plan(bundle, GRAPH, "tensorrt", version, capability).read_bytes().decode()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    plan = write(tmp_path, "fleet", compatibility=FLEET)
    assert plan.path.name == f"encoder.{GRAPH[:8]}.tensorrt-10.14.1.48.sm_86.version.ampere+.plan"
    assert read_plan(plan.path) == plan
    assert plan.info.compatibility == FLEET


def test_metadata_is_of_format_2_only_where_it_must_be(tmp_path: Path) -> None:
    """What earlier versions of bitheads can read stays as it was."""
    found = {}
    for name, compatibility in (("one", ()), ("fleet", FLEET)):
        path = write(tmp_path, name, compatibility=compatibility).path.with_suffix(".json")
        found[name] = json.loads(path.read_text())
    assert found["one"]["format_version"] == 1
    assert "compatibility" not in found["one"]
    assert found["fleet"]["format_version"] == 2
    assert found["fleet"]["compatibility"] == ["version", "ampere+"]


@pytest.mark.parametrize(
    ("compatibility", "version", "capability"),
    [
        (("version",), "10.14.1.48", "8.6"),
        (("version",), "10.14.1.49", "8.6"),
        (("version",), "10.14.1.48.post1", "8.6"),
        (("version",), "10.15", "8.6"),
        (("version",), "11.0.0.1", "8.6"),
        (("same-compute-capability",), "10.14.1.48", "8.6"),
        (("ampere+",), "10.14.1.48", "8.0"),
        (("ampere+",), "10.14.1.48", "12.0"),
        (FLEET, "11.4.1", "9.0"),
    ],
)
def test_where_a_compatible_plan_runs(
    tmp_path: Path, compatibility: tuple[str, ...], version: str, capability: str
) -> None:
    write(tmp_path, "fleet", compatibility=compatibility)
    assert find(tmp_path, version, capability) == "fleet"


@pytest.mark.parametrize(
    ("compatibility", "version", "capability", "message"),
    [
        ((), "10.14.1.49", "8.6", "version is 10.14.1.48, expected 10.14.1.49."),
        (("version",), "10.14.1.47", "8.6", "10.14.1.48 and later, expected 10.14.1.47."),
        (("version",), "10.9.0.34", "8.6", "10.14.1.48 and later, expected 10.9.0.34."),
        (("version",), "9.3.0.1", "8.6", "10.14.1.48 and later, expected 9.3.0.1."),
        (("version",), "12.0.0.1", "8.6", "10.14.1.48 and later, expected 12.0.0.1."),
        (("version",), "10.14.1.48", "8.9", "it is for compute capability 8.6, expected 8.9."),
        (("ampere+",), "10.15", "8.9", "version is 10.14.1.48, expected 10.15."),
        (("ampere+",), "10.14.1.48", "7.5", "for compute capability 8.6, expected 7.5."),
        (("same-compute-capability",), "10.14.1.48", "8.9", "capability 8.6, expected 8.9."),
    ],
)
def test_where_a_compatible_plan_does_not_run(
    tmp_path: Path, compatibility: tuple[str, ...], version: str, capability: str, message: str
) -> None:
    write(tmp_path, "fleet", compatibility=compatibility)
    with pytest.raises(PlanError) as error:
        find(tmp_path, version, capability)
    assert message in str(error.value).splitlines()[1]


def test_tensorrt_11_takes_plans_of_10_and_nothing_else_crosses_a_major_version() -> None:
    for built_with, here, expected in (
        ("10.3", "11.0", True),
        ("11.0", "10.16", False),
        ("8.6.1", "10.3", False),
        ("11.1", "12.0", False),
        ("10.3", "12.0", False),
    ):
        assert takes_version(("version",), built_with, here) == expected, (built_with, here)


def test_a_plan_that_fits_exactly_is_preferred(tmp_path: Path) -> None:
    """Whatever was written last, each of these is taken before those below it."""
    later = {"version": "10.3.0.1", "compatibility": FLEET}
    best_first = {
        "exact": {},
        "any model": {"compatibility": ("same-compute-capability",)},
        "for later versions, too": {"compatibility": ("version", "same-compute-capability")},
        "of another GPU": {"compute_capabilities": ("8.0",), "compatibility": ("ampere+",)},
        "of an earlier version": {**later},
        "of both": {**later, "compute_capabilities": ("8.0",)},
    }
    for written, (name, changes) in enumerate(best_first.items()):
        plan = write(tmp_path, name, **changes)
        os.utime(plan.path, (written, written))
    for name in best_first:
        assert find(tmp_path) == name
        (path,) = (p for p in (tmp_path / "plans").glob("*.plan") if p.read_text() == name)
        path.unlink()


def test_of_equals_the_last_written_is_taken(tmp_path: Path) -> None:
    for name, capability in (("old", "8.0"), ("new", "9.0"), ("older", "8.9")):
        fleet = {"compute_capabilities": (capability,), "compatibility": ("ampere+",)}
        plan = write(tmp_path, name, **fleet)
        age_s = {"old": 2, "new": 3, "older": 1}[name]
        os.utime(plan.path, (age_s, age_s))
    assert find(tmp_path) == "new"


def test_what_to_type_makes_the_same_plan_again(tmp_path: Path) -> None:
    plan = write(tmp_path, "fleet", compatibility=FLEET)
    plan.path.write_bytes(b"flees")
    with pytest.raises(PlanError, match=r"--plan tensorrt --plan-compatibility version,ampere\+$"):
        plan.read_bytes()


def test_a_plan_of_a_quantized_graph_is_of_format_2(tmp_path: Path) -> None:
    plan = write(tmp_path, "quantized", precision="fp8")
    assert plan.path.name.startswith(f"encoder.fp8.{GRAPH[:8]}.tensorrt-10.14.1.48.")
    assert read_plan(plan.path) == plan
    assert json.loads(plan.path.with_suffix(".json").read_text())["format_version"] == 2
    plan.path.write_bytes(b"quantizes")
    with pytest.raises(PlanError, match=r"--plan tensorrt --plan-precision fp8$"):
        plan.read_bytes()


@pytest.mark.parametrize(
    "names",
    [
        ("ampere+", "version"),
        ("version", "version"),
        ("same-compute-capability", "ampere+"),
        ("turing+",),
        ("none",),
        (None,),
        ("",),
    ],
)
def test_kinds_that_do_not_go_together(tmp_path: Path, names: tuple[Any, ...]) -> None:
    with pytest.raises(PlanError, match=r"compatibility: got .*, expected 'version', one of"):
        check_compatibility(names)
    path = write(tmp_path, "fleet", compatibility=("version",)).path
    content = json.loads(path.with_suffix(".json").read_text())
    del content["sha256"]
    content["compatibility"] = list(names)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps({**content, "sha256": digest}))
    with pytest.raises(PlanError, match="is malformed"):
        read_plan(path)


def test_capabilities_are_numbers() -> None:
    assert takes_capability(("ampere+",), ("8.6",), "10.0"), "which is above 8.0"
    assert not takes_capability((), ("8.6",), "10.0")
