"""Plans as the C++ host finds them: those that `find_plan` finds, with the same misfits."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from formula_sessions import FormulaPlugin
from test_host_errors import refused

from benchmarks.contenders.host_library import HostEngine, HostError
from bitheads import PlanError
from bitheads.engine.bundle import (
    GPU_GRAPHS,
    GRAPH,
    MANIFEST,
    _hash,
    graph_sha256,
    read_manifest,
)
from bitheads.engine.device.plan import PLANS, Plan, PlanInfo, find_plan, write_plan
from bitheads.engine.device.profile import Profile

OpenEngine = Callable[..., HostEngine]
DATA = b"a plan of the formula"
VERSION = "10.99.0.1"
"""Of the library behind the plugin."""

PROFILE = Profile((1, 1), (4, 16), (8, 48))


@pytest.fixture
def write(own_host_bundle: Path, formula: FormulaPlugin) -> Callable[..., Plan]:
    """Writes a plan into the bundle; of the software device's GPU unless it is said otherwise."""
    formula.set(plans=1)

    def write(data: bytes = DATA, **changed: Any) -> Plan:
        info = info_of(own_host_bundle, data)
        return write_plan(own_host_bundle, replace(info, **changed), data)

    return write


def info_of(bundle: Path, data: bytes) -> PlanInfo:
    """Of a plan of the bundle's graph, for the software device's GPU."""
    manifest = read_manifest(bundle)
    return PlanInfo(
        graph_sha256=graph_sha256(manifest.artifacts),
        flavour="tensorrt",
        version=VERSION,
        compute_capabilities=("8.6",),
        precision="fp16",
        profiles=(PROFILE,),
        inputs=dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), "int64"),
        outputs=dict.fromkeys(manifest.output_names, "float16"),
        plan_bytes=len(data),
        plan_sha256=hashlib.sha256(data).hexdigest(),
    )


def why(bundle: Path) -> str:
    """What Python says where no plan fits."""
    with pytest.raises(PlanError) as caught:
        find_plan(bundle, graph_sha256(read_manifest(bundle).artifacts), "tensorrt", VERSION, "8.6")
    return str(caught.value)


def test_a_plan_and_its_profiles_go_to_the_plugin(
    open_engine: OpenEngine, write: Callable[..., Plan], own_host_bundle: Path
) -> None:
    """Which compares the bytes, and cuts batches by the profile."""
    write()
    engine = open_engine(own_host_bundle)
    assert engine.backend == "tensorrt fp16"
    texts = [f"number {i}" for i in range(40)]
    assert len(engine.encode(texts).offsets) == 41
    with refused(
        "backend", "a text of 64 tokens: got room for 384 tokens and 0 rows", "larger profile"
    ):
        engine.encode(["tide " * 100])


def test_no_plan(
    open_engine: OpenEngine, formula: FormulaPlugin, own_host_bundle: Path, write: object
) -> None:
    with refused("backend", why(own_host_bundle)):
        open_engine(own_host_bundle)
    formula.set(no_library=1)
    with refused("backend", "libbitheads_formula.so"):
        open_engine(own_host_bundle)


@pytest.mark.parametrize(
    "changed",
    [
        {"version": "10.99.0.2"},
        {"flavour": "tensorrt-rtx", "version": "1.4.0.76"},
        {"compute_capabilities": ("8.0", "9.0")},
        {"graph_sha256": "0" * 64},
        {"version": "9.1", "compute_capabilities": ("12.0",), "graph_sha256": "1" * 64},
    ],
    ids=lambda changed: "+".join(changed),
)
def test_a_plan_that_does_not_fit(
    open_engine: OpenEngine,
    write: Callable[..., Plan],
    own_host_bundle: Path,
    changed: dict[str, Any],
) -> None:
    """It says what Python says, but for the order of what differs."""
    write(**changed)
    with pytest.raises(HostError) as caught:
        open_engine(own_host_bundle)
    parts = [
        sorted(re.split(r"; |: |\.\n|\n", said))
        for said in (str(caught.value), why(own_host_bundle))
    ]
    assert parts[0] == parts[1]


@pytest.mark.parametrize("precision", list(GPU_GRAPHS))
def test_plans_of_a_bundle_that_has_other_graphs_too(
    open_engine: OpenEngine, formula: FormulaPlugin, own_host_bundle: Path, precision: str
) -> None:
    """Whose files are no part of the graph's hash; their own plans are not for this host."""
    graph = own_host_bundle / GPU_GRAPHS[precision]
    shutil.copyfile(own_host_bundle / GRAPH, graph)
    path = own_host_bundle / MANIFEST
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["sha256"]
    content["artifacts"][graph.name] = content["artifacts"][GRAPH]
    path.write_text(json.dumps({**content, "sha256": _hash(content)}), encoding="utf-8")
    formula.set(plans=1)
    artifacts = read_manifest(own_host_bundle).artifacts
    quantized = info_of(own_host_bundle, DATA)
    quantized = replace(
        quantized, precision=precision, graph_sha256=graph_sha256(artifacts, graph.name)
    )
    if precision == "fp8":
        quantized = replace(quantized, compute_capabilities=("8.9",))
    write_plan(own_host_bundle, quantized, DATA)
    with refused("backend", "has format version 2, expected 1", "no plan for tensorrt"):
        open_engine(own_host_bundle)
    write_plan(own_host_bundle, info_of(own_host_bundle, DATA), DATA)
    assert open_engine(own_host_bundle).backend == "tensorrt fp16"


def test_of_several_the_one_written_last(
    open_engine: OpenEngine, write: Callable[..., Plan], own_host_bundle: Path
) -> None:
    older = write(b"of another encoder", compute_capabilities=("8.0", "8.6"))
    newer = write()
    os.utime(older.path, (1, 1))
    assert open_engine(own_host_bundle).backend == "tensorrt fp16"
    os.utime(newer.path, (0, 0))
    with refused("backend", "these are not the bytes of the plan", older.path.name):
        open_engine(own_host_bundle)


def spoil_text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def rehash(path: Path, **changed: Any) -> None:
    """Metadata that was changed by somebody who knows the format; None takes a field out."""
    content = {**json.loads(path.read_text()), **changed}
    del content["sha256"]
    content = {name: value for name, value in content.items() if value is not None}
    canonical = json.dumps(content, sort_keys=True).encode()
    path.write_text(json.dumps({**content, "sha256": hashlib.sha256(canonical).hexdigest()}))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut short": (lambda p: p.write_bytes(DATA[:-1]), "got 20 bytes, expected 21"),
    "changed": (lambda p: p.write_bytes(DATA[:-1] + b"!"), "was changed: got sha256"),
    "renamed": (
        lambda p: [p.with_suffix(s).rename(p.with_name("other" + s)) for s in (".plan", ".json")],
        "other.plan: got this name, expected encoder.",
    ),
    "without metadata": (lambda p: p.with_suffix(".json").unlink(), "beside it, which says"),
    "edited": (
        lambda p: spoil_text(p.with_suffix(".json"), VERSION, "10.99.0.2"),
        "was edited: got sha256",
    ),
    "huge metadata": (
        lambda p: p.with_suffix(".json").write_text(" " * (1 << 20) + "{}"),
        "more than 1048576 bytes",
    ),
    "no json": (lambda p: p.with_suffix(".json").write_text("[]"), "cannot be read"),
    "another format": (
        lambda p: rehash(p.with_suffix(".json"), format_version=2),
        "has format version 2, expected 1",
    ),
}
for _name, _changed in {
    "a field of another version": {"strategy": 1},
    "no profiles": {"profiles": []},
    "a profile upside down": {"profiles": [{"min": [2, 1], "opt": [1, 1], "max": [4, 4]}]},
    "a profile of floats": {"profiles": [{"min": [1, 1], "opt": [1.0, 1], "max": [4, 4]}]},
    "an unknown flavour": {"flavour": "tensorflow"},
    "no version": {"version": "ten"},
    "a version with a path": {"version": "10.1/../x"},
    "no capability": {"compute_capabilities": ["8.6", "sm_86"]},
    "no hash": {"graph_sha256": "xyz"},
    "an unknown precision": {"precision": "int4"},
    "an unknown input": {"inputs": {"pixels": "int64"}},
    "inputs of another type": {"inputs": {"input_ids": "int32"}},
    "no outputs": {"outputs": None},
    "a size that is none": {"plan_bytes": True},
}.items():
    DAMAGE[_name] = (lambda p, c=_changed: rehash(p.with_suffix(".json"), **c), "is malformed")


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_plans(
    open_engine: OpenEngine, write: Callable[..., Plan], own_host_bundle: Path, damage: str
) -> None:
    plan = write()
    spoil, words = DAMAGE[damage]
    spoil(plan.path)
    with refused("backend", words, "bitheads plan --bundle"):
        open_engine(own_host_bundle)


def test_outputs_that_are_not_the_bundles(
    open_engine: OpenEngine, write: Callable[..., Plan], own_host_bundle: Path
) -> None:
    names = read_manifest(own_host_bundle).output_names
    for outputs in (
        {"hidden_99": "float16"},
        dict(zip(names, ("float16", "float32"), strict=True)),
    ):
        write(outputs=outputs)
        with refused("backend", "or outputs of several types", "Build it again"):
            open_engine(own_host_bundle)


def test_a_folder_with_a_space(
    open_engine: OpenEngine, write: Callable[..., Plan], own_host_bundle: Path, tmp_path: Path
) -> None:
    """What is to be typed is quoted for a shell."""
    write(version="10.99.0.2")
    folder = Path(shutil.copytree(own_host_bundle, tmp_path / "it's a bundle"))
    assert (folder / PLANS).is_dir()
    with refused("backend", why(folder).rsplit("\n", 1)[1]):
        open_engine(folder)
