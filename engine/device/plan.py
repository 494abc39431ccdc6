"""The plan format: a TensorRT engine, serialized, with what a host must know before it loads it.

    plans/encoder.<graph>.<flavour>-<version>.<architectures>.plan   what TensorRT wrote, as it is
    plans/encoder.<graph>.<flavour>-<version>.<architectures>.json   this module's metadata
    plans/encoder.fp8.<graph>...                                     of a quantized graph

This module is the format's only owner, `bitheads plan` the only writer. `<graph>` are the first
eight digits of the graph's hash, `<architectures>` such as `sm_86+sm_89`. What the plan runs on
beside that (engine.device.plan_compatibility) follows: `sm_86.version.ampere+.plan`.

A plan is a cache. It is made from the bundle's graph in seconds to minutes, fits one TensorRT
version and few GPUs, and is worthless elsewhere; so bundle.json does not list plans, which come
and go while the bundle stays. Each names the graph it was made from, and carries its own hashes:
of the plan in its metadata, of the metadata in itself. They find damage and mix-ups, not malice:
a plan is machine code, load only those you trust.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitheads.engine.bundle import GPU_GRAPHS, GRAPH
from bitheads.engine.device.plan_compatibility import (
    LATER_VERSIONS,
    check_compatibility,
    takes_capability,
    takes_version,
)
from bitheads.engine.device.profile import Profile
from bitheads.engine.errors import PlanError
from bitheads.engine.files.whole_file import write_whole

FORMAT_VERSIONS = (1, 2)
"""Of metadata: 2 is written only of plans that have what readers of 1 do not know."""
PLANS = "plans"
PLAN_SUFFIX, METADATA_SUFFIX = ".plan", ".json"
MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Flavour of TensorRT -> the module that builds and runs its plans."""
RTX_LEAVES_OUT = ("9", "10")
"""Compute capabilities, before the point, that TensorRT-RTX is not made for: data center GPUs."""

_MAX_METADATA_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"\d+(\.\w+){1,5}")
_CAPABILITY = re.compile(r"\d{1,2}\.\d")


@dataclass(frozen=True)
class PlanInfo:
    """What a plan was made from, for, and how.

    Attributes:
        graph_sha256: of the graph and its weights, see `graph_sha256`.
        flavour: key of MODULES.
        version: of TensorRT, in full; a plan runs on the version that made it.
        compute_capabilities: of the GPUs it runs on, such as "8.6", ascending.
        precision: floating-point type of the graph, "fp16" or "fp32", or a key of GPU_GRAPHS.
            TensorRT takes each tensor's type from the graph and may not change it.
        profiles: in TensorRT's order, so an index here is the index of the profile there.
        inputs, outputs: tensor name -> NumPy dtype, such as "int64".
        plan_bytes, plan_sha256: of the .plan file.
        options: how it was built: workspace_bytes, and others for people to read.
        compatibility: what it runs on beside that: of COMPATIBILITIES, in their order. A plan for
            later versions brings a runtime of its own.
    """

    graph_sha256: str
    flavour: str
    version: str
    compute_capabilities: tuple[str, ...]
    precision: str
    profiles: tuple[Profile, ...]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    plan_bytes: int
    plan_sha256: str
    options: Mapping[str, Any] = field(default_factory=dict)
    compatibility: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_flavour(self.flavour)
        check_compatibility(self.compatibility)
        for name, pattern, value in (
            ("graph_sha256", _SHA256, self.graph_sha256),
            ("plan_sha256", _SHA256, self.plan_sha256),
            ("version", _VERSION, self.version),
            ("precision", re.compile("fp16|fp32|fp8|int8"), self.precision),
            *(("compute_capabilities", _CAPABILITY, c) for c in self.compute_capabilities),
        ):
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise PlanError(f"{name}: got {value!r}, expected {pattern.pattern}.")
        for name in ("compute_capabilities", "profiles", "inputs", "outputs"):
            if not getattr(self, name):
                raise PlanError(f"{name}: got none, expected one or more.")
        for names in (self.inputs, self.outputs):
            if not all(isinstance(part, str) for item in names.items() for part in item):
                raise PlanError(f"tensors: got {names!r}, expected name -> dtype.")
        if type(self.plan_bytes) is not int or self.plan_bytes < 1:
            raise PlanError(f"plan_bytes: got {self.plan_bytes!r}, expected 1 or more.")

    @property
    def name(self) -> str:
        """Name of its two files, without suffix."""
        architectures = "+".join(
            "sm_" + capability.replace(".", "") for capability in self.compute_capabilities
        )
        graph = f"{Path(GPU_GRAPHS.get(self.precision, GRAPH)).stem}.{self.graph_sha256[:8]}"
        built_for = f"{graph}.{self.flavour}-{self.version}.{architectures}"
        return ".".join((built_for, *self.compatibility))

    @property
    def format_version(self) -> int:
        return 2 if self.compatibility or self.precision in GPU_GRAPHS else 1

    def dumps(self) -> str:
        content: dict[str, Any] = {
            "format_version": self.format_version,
            "graph_sha256": self.graph_sha256,
            "flavour": self.flavour,
            "version": self.version,
            "compute_capabilities": list(self.compute_capabilities),
            "precision": self.precision,
            "profiles": [
                {"min": list(p.min), "opt": list(p.opt), "max": list(p.max)} for p in self.profiles
            ],
            "inputs": dict(self.inputs),
            "outputs": dict(self.outputs),
            "plan_bytes": self.plan_bytes,
            "plan_sha256": self.plan_sha256,
            "options": dict(self.options),
        }
        if self.compatibility:
            content["compatibility"] = list(self.compatibility)
        return json.dumps({**content, "sha256": _hash(content)}, indent=2) + "\n"


@dataclass(frozen=True)
class Plan:
    """A plan in a bundle, its metadata read and checked, its bytes not read yet."""

    path: Path
    info: PlanInfo

    @property
    def profiles(self) -> tuple[Profile, ...]:
        return self.info.profiles

    def read_bytes(self) -> bytes:
        """What TensorRT deserializes. Raises PlanError if it is not what was written."""
        fix = f"Type: {self._rebuild()}"
        try:
            with self.path.open("rb") as file:
                # No more than was written: a file of another size is not read in full.
                data = file.read(self.info.plan_bytes + 1)
        except OSError as error:
            raise PlanError(f"plan {self.path}: cannot be read ({error}). {fix}") from error
        if len(data) != self.info.plan_bytes:
            got = f"{len(data)}" if len(data) < self.info.plan_bytes else "more"
            raise PlanError(
                f"plan {self.path}: got {got} bytes, expected {self.info.plan_bytes}. It was cut "
                f"short or replaced. {fix}"
            )
        if (got := hashlib.sha256(data).hexdigest()) != self.info.plan_sha256:
            raise PlanError(
                f"plan {self.path}: was changed: got sha256 {got[:12]}..., expected "
                f"{self.info.plan_sha256[:12]}.... {fix}"
            )
        return data

    def _rebuild(self) -> str:
        info = self.info
        return rebuild_command(
            self.path.parent.parent,
            info.flavour,
            info.compute_capabilities,
            info.compatibility,
            info.precision,
        )


def find_plan(
    bundle_folder: Path,
    graph_sha256: str,
    flavour: str,
    version: str,
    compute_capability: str,
    precision: str | None = None,
) -> Plan:
    """The plan of a bundle that runs here.

    Of several, one of this very version, then one for this very compute capability, then one for
    the fewest others, as those are the faster ones; of equals, the one written last.

    Args:
        graph_sha256: see `graph_sha256`.
        flavour: key of MODULES.
        version: `__version__` of its module.
        compute_capability: of the GPU, such as "8.6".
        precision: of the graph, if it is a key of GPU_GRAPHS; for what to type.

    Raises PlanError if there is none: it says what is there, why each does not fit, and what to
    type. The plan's size is compared, its hash only by `Plan.read_bytes`.
    """
    check_flavour(flavour)
    found: list[tuple[Any, Plan]] = []
    misfits = []
    for path in sorted((bundle_folder / PLANS).glob(f"*{PLAN_SUFFIX}")):
        try:
            plan = read_plan(path)
        except PlanError as error:
            misfits.append(str(error))
            continue
        info = plan.info
        if different := _misfit(info, graph_sha256, flavour, version, compute_capability):
            misfits.append(f"plan {path}: {different}.")
            continue
        is_exact = info.version == version, compute_capability in info.compute_capabilities
        order = *is_exact, -len(info.compatibility), path.stat().st_mtime, path.name
        found.append((order, plan))
    if found:
        return max(found, key=lambda one: one[0])[1]
    if compute_capability.split(".")[0] in RTX_LEAVES_OUT:
        command = rebuild_command(bundle_folder, "tensorrt", precision=precision)
    else:
        command = rebuild_command(bundle_folder, flavour, [compute_capability], (), precision)
    there = "".join(f"\n  {misfit}" for misfit in misfits) or " There are none."
    raise PlanError(
        f"bundle {bundle_folder}: no plan for {flavour} {version}, compute capability "
        f"{compute_capability}, graph {graph_sha256[:8]}.{there}\nType: {command}"
    )


def _misfit(
    info: PlanInfo, graph_sha256: str, flavour: str, version: str, compute_capability: str
) -> str:
    """Why a plan does not run here; "" if it does."""
    different = [
        f"{name} is {_short(getattr(info, name))}, expected {_short(wanted)}"
        for name, wanted in (("flavour", flavour), ("graph_sha256", graph_sha256))
        if getattr(info, name) != wanted
    ]
    if info.flavour == flavour and not takes_version(info.compatibility, info.version, version):
        later = " and later" if LATER_VERSIONS in info.compatibility else ""
        different.append(f"version is {info.version}{later}, expected {version}")
    built_for = info.compute_capabilities
    if not takes_capability(info.compatibility, built_for, compute_capability):
        different.append(
            f"it is for compute capability {', '.join(built_for)}, expected {compute_capability}"
        )
    return "; ".join(different)


def read_plan(path: Path) -> Plan:
    """A plan by its .plan file: reads the metadata beside it and compares the plan's size.

    Raises PlanError, naming the file and what to type, for any defect.
    """
    beside = path.with_suffix(METADATA_SUFFIX)
    fix = f"Type: {rebuild_command(path.parent.parent)}"
    try:
        with beside.open("rb") as file:
            text = file.read(_MAX_METADATA_BYTES + 1)
        if len(text) > _MAX_METADATA_BYTES:
            raise ValueError(f"more than {_MAX_METADATA_BYTES} bytes")
        content = json.loads(text)
        version = content["format_version"]
        expected = content.pop("sha256")
        got = _hash(content)
    except FileNotFoundError as error:
        raise PlanError(
            f"plan {path}: no {beside.name} beside it, which says what it is for. {fix}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PlanError(f"plan {path}: {beside.name} cannot be read ({error!r}). {fix}") from error
    if type(version) is not int or version not in FORMAT_VERSIONS:
        raise PlanError(
            f"plan {path}: got format version {version!r}, expected one of {FORMAT_VERSIONS}. {fix}"
        )
    if got != expected:
        raise PlanError(
            f"plan {path}: {beside.name} was edited: got sha256 {got[:12]}..., expected "
            f"{str(expected)[:12]}.... {fix}"
        )
    try:
        info = _from_json(content)
        size = path.stat().st_size
    except OSError as error:
        raise PlanError(f"plan {path}: cannot be read ({error}). {fix}") from error
    except (PlanError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise PlanError(f"plan {path}: {beside.name} is malformed ({error}). {fix}") from error
    if info.name != path.stem:
        raise PlanError(f"plan {path}: got this name, expected {info.name}{PLAN_SUFFIX}. {fix}")
    if size != info.plan_bytes:
        raise PlanError(
            f"plan {path}: got {size} bytes, expected {info.plan_bytes}. It was cut short or "
            f"replaced. {fix}"
        )
    return Plan(path, info)


def write_plan(bundle_folder: Path, info: PlanInfo, data: Any) -> Plan:
    """Writes a plan and its metadata; both replace those of the same name.

    Metadata goes first and comes last, so that what a reader finds is whole at any moment: the
    old plan, the new one, or one without metadata, which is none.

    Args:
        info: with the size and SHA-256 of `data`.
        data: bytes, or a buffer of them.

    Raises PlanError if they do not belong together or cannot be written.
    """
    path = bundle_folder / PLANS / (info.name + PLAN_SUFFIX)
    size, digest = memoryview(data).nbytes, hashlib.sha256(data).hexdigest()
    if (size, digest) != (info.plan_bytes, info.plan_sha256):
        raise PlanError(
            f"plan {path}: got {size} bytes, sha256 {digest[:12]}..., expected "
            f"{info.plan_bytes} bytes, {info.plan_sha256[:12]}..., as the metadata says."
        )
    beside = path.with_suffix(METADATA_SUFFIX)
    try:
        with suppress(FileNotFoundError):
            beside.unlink()
        write_whole(path, data)
        write_whole(beside, info.dumps().encode())
    except OSError as error:
        raise PlanError(
            f"plan {path}: cannot be written ({error}). Choose a folder you may write to, with "
            f"{size} bytes free."
        ) from error
    return Plan(path, info)


def rebuild_command(
    bundle_folder: Path,
    flavour: str | None = None,
    compute_capabilities: Sequence[str] = (),
    compatibility: Sequence[str] = (),
    precision: str | None = None,
) -> str:
    """What to type to make a bundle's plan again."""
    command = f"bitheads plan --bundle {shlex.quote(str(bundle_folder))}"
    if flavour is not None:
        command += f" --plan {flavour}"
    if flavour == "tensorrt-rtx" and compute_capabilities:
        command += f" --plan-capabilities {','.join(compute_capabilities)}"
    if precision in GPU_GRAPHS:
        command += f" --plan-precision {precision}"
    if compatibility:
        command += f" --plan-compatibility {','.join(compatibility)}"
    return command


def check_flavour(flavour: str) -> None:
    """Raises PlanError for an unknown flavour."""
    if flavour not in MODULES:
        raise PlanError(f"flavour: got {flavour!r}, expected one of {list(MODULES)}.")


def _from_json(content: Mapping[str, Any]) -> PlanInfo:
    fields = {name: value for name, value in content.items() if name != "format_version"}
    for name in ("compute_capabilities", "compatibility"):
        fields[name] = tuple(fields.get(name, ()))
    fields["profiles"] = tuple(
        Profile(**{name: tuple(shape) for name, shape in profile.items()})
        for profile in fields["profiles"]
    )
    info = PlanInfo(**fields)
    if info.format_version > content["format_version"]:
        raise ValueError(f"what it says came with format version {info.format_version}")
    return info


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _short(value: str) -> str:
    return f"{value[:12]}..." if _SHA256.fullmatch(value) else value
