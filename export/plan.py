"""`bitheads plan`: the graph of a bundle becomes a TensorRT plan in it (engine.device.plan)."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bitheads.engine.bundle import GRAPH, Manifest, graph_sha256, read_manifest, verify
from bitheads.engine.commands.command_line import exit_code, leave
from bitheads.engine.device.plan import Plan, PlanInfo, write_plan
from bitheads.engine.device.profile import Profile
from bitheads.engine.files.whole_file import write_whole
from bitheads.engine.process.json_lines import print_json
from bitheads.engine.process.plain_numbers import plain_numbers
from bitheads.export import tensorrt_module
from bitheads.export.errors import ExportError
from bitheads.export.plan_config import (
    NO_PLAN,
    PlanConfig,
    add_plan_options,
    default_profiles,
    plan_config,
)
from bitheads.export.plan_progress import build_serialized

Say = Callable[[str], None]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
LARGEST_FLOAT16_CONSTANT = 6e4
"""Above it lie the lowest float16 that masks often are, and what float32 was clamped to."""
_SHOWN = 5
_TYPES = {"FLOAT": "float32", "HALF": "float16", "INT64": "int64", "INT32": "int32"}

EPILOG = """\
examples:
  bitheads plan --bundle bundles/all-MiniLM-L6-v2
  bitheads plan --bundle bundles/roberta --plan tensorrt-rtx --plan-capabilities 8.6,12.0
  bitheads plan --bundle bundles/roberta --plan-profile 1x1,1x64,1x512 \\
      --plan-profile 1x1,64x128,64x128
"""


def resolve_plan(config: PlanConfig, say: Say = lambda message: None) -> PlanConfig:
    """The same plan with its flavour and compute capabilities settled, to be asked before the work.

    Raises ExportError for what cannot be built here.
    """
    flavour = tensorrt_module.choose_flavour(config.flavour, say)
    if flavour is None:
        return NO_PLAN
    if config.timing_cache is not None:
        tensorrt_module.check_timing_cache(flavour)
    trt = tensorrt_module.load(flavour)
    capabilities = tensorrt_module.check_capabilities(trt, flavour, config.capabilities)
    here = tensorrt_module.gpu_capability()
    if here is not None and here not in capabilities:
        say(f"the GPU here is of compute capability {here}: the plan will not run on it")
    return replace(config, flavour=flavour, capabilities=capabilities)


@plain_numbers()
def build_plan(
    bundle_folder: Path, manifest: Manifest, config: PlanConfig, say: Say = lambda message: None
) -> Plan | None:
    """Builds a plan from a bundle's graph and writes it to the bundle, replacing its like.

    Args:
        say: called with one line for each step.

    Returns None if the config asks for no plan, or for "auto" where no TensorRT is.

    Raises ExportError if it cannot be built, or if the network would lose precision; PlanError if
    it cannot be written. Nothing is written then, nor after KeyboardInterrupt.
    """
    config = resolve_plan(config, say)
    flavour, capabilities = config.flavour, config.capabilities
    if flavour == "none":
        return None
    config.check_max_length(manifest.encoder.max_length)
    profiles = config.profiles or default_profiles(manifest.encoder.max_length)
    trt = tensorrt_module.load(flavour)
    logger = _logger(trt)
    builder = _create_builder(trt, logger, flavour)
    network = tensorrt_module.create_network(trt, builder)
    parser = trt.OnnxParser(network, logger)  # owns the weights: lives until the build ends
    if not parser.parse_from_file(str(bundle_folder / GRAPH)):
        errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise ExportError(f"{flavour}: cannot read {bundle_folder / GRAPH}: {'; '.join(errors)}.")
    inputs, outputs = check_tensors(network, manifest)
    check_numerics(trt, network)

    builder_config = builder.create_builder_config()
    tensorrt_module.no_tf32(trt, builder_config)
    tensorrt_module.target(trt, builder_config, flavour, capabilities)
    workspace = trt.MemoryPoolType.WORKSPACE
    if config.workspace_gib is not None:
        builder_config.set_memory_pool_limit(workspace, int(config.workspace_gib * (1 << 30)))
    for profile in profiles:
        _add_profile(builder, builder_config, list(inputs), profile)
    timings = None
    if config.timing_cache is not None:
        timings = tensorrt_module.use_timing_cache(builder_config, config.timing_cache)
    say(
        f"{flavour} {trt.__version__}: building for compute capability {', '.join(capabilities)}, "
        f"{len(profiles)} profiles"
    )
    data = build_serialized(trt, builder, network, builder_config)
    if data is None:
        raise ExportError(
            f"{flavour}: cannot build a plan: {' '.join(logger.errors[-3:]) or 'it says no more'}. "
            "Try a larger --plan-workspace, or smaller profiles (--plan-profile)."
        )
    info = PlanInfo(
        graph_sha256=graph_sha256(manifest.artifacts),
        flavour=flavour,
        version=trt.__version__,
        compute_capabilities=capabilities,
        precision=manifest.encoder.precision,
        profiles=profiles,
        inputs=inputs,
        outputs=outputs,
        plan_bytes=memoryview(data).nbytes,
        plan_sha256=hashlib.sha256(data).hexdigest(),
        options={
            "workspace_bytes": builder_config.get_memory_pool_limit(workspace),
            "tf32": False,
        },
    )
    plan = write_plan(bundle_folder, info, data)
    if timings is not None and config.timing_cache is not None:
        _write_timings(config.timing_cache, timings())
    say(f"wrote {plan.path.name}, {info.plan_bytes / 1e6:.1f} MB")
    return plan


def check_tensors(network: Any, manifest: Manifest) -> tuple[dict[str, str], dict[str, str]]:
    """The network's inputs and outputs, name -> dtype.

    Raises ExportError unless they are what the bundle promises: int64 [rows, seq] inputs, and
    the manifest's outputs [rows, seq, dim] in its precision.
    """
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    names = [tensor.name for tensor in inputs]
    if not set(INPUTS[:2]) <= set(names) <= set(INPUTS):
        raise ExportError(
            f"graph: got the inputs {names}, expected {list(INPUTS)}, of which the last may be "
            "absent. Export the bundle again."
        )
    if (got := [tensor.name for tensor in outputs]) != manifest.output_names:
        raise ExportError(
            f"graph: got the outputs {got}, expected {manifest.output_names}, as bundle.json says. "
            "Export the bundle again."
        )
    dtype = {"fp16": "float16", "fp32": "float32"}[manifest.encoder.precision]
    found = []
    for tensors, expected_dtype, expected_shape in (
        (inputs, "int64", (-1, -1)),
        (outputs, dtype, (-1, -1, manifest.spec.dim)),
    ):
        for tensor in tensors:
            got_dtype = _TYPES.get(tensor.dtype.name, tensor.dtype.name)
            if (got_dtype, tuple(tensor.shape)) != (expected_dtype, expected_shape):
                raise ExportError(
                    f"graph: {tensor.name} is {got_dtype} {list(tensor.shape)}, expected "
                    f"{expected_dtype} {list(expected_shape)}, -1 for any size. Export the bundle "
                    "again."
                )
        found.append({tensor.name: expected_dtype for tensor in tensors})
    return found[0], found[1]


def check_numerics(trt: Any, network: Any) -> None:
    """Has normalizations compute in float32, and refuses what would lose precision or overflow.

    Known to go wrong in float16: softmax, normalizations and other sums over many values (their
    squares pass 65504 in RoBERTa), and masks of the lowest float16, which a negative score turns
    to -inf.

    Raises ExportError for a softmax or reduction of float16, and for float16 constants beyond
    +-6e4.
    """
    found = []
    for layer in _layers(network):
        if layer.type == trt.LayerType.NORMALIZATION:
            tensorrt_module.normalize_in_fp32(trt, layer)
        elif layer.type in (trt.LayerType.SOFTMAX, trt.LayerType.REDUCE):
            dtype = layer.get_input(0).dtype
            if dtype in (trt.float16, trt.bfloat16):
                found.append(f"{layer.name}: got {layer.type.name} of {dtype.name}, expected FLOAT")
        elif layer.type == trt.LayerType.CONSTANT and layer.get_output(0).dtype == trt.float16:
            layer.__class__ = trt.IConstantLayer  # get_layer returns the base class
            weights = np.asarray(layer.weights)
            largest = max(-float(weights.min()), float(weights.max())) if weights.size else 0.0
            if not largest <= LARGEST_FLOAT16_CONSTANT:  # true of NaN, too
                found.append(
                    f"{layer.name}: got a float16 constant of magnitude {largest}, expected at "
                    f"most {LARGEST_FLOAT16_CONSTANT:.0f}"
                )
    if found:
        shown = "\n  ".join(found[:5]) + (
            f"\n  and {len(found) - 5} more" if len(found) > 5 else ""
        )
        raise ExportError(
            f"the graph would lose precision in TensorRT:\n  {shown}\nExport the bundle again with "
            "this version of bitheads, or with --precision fp32."
        )


def _layers(network: Any) -> Iterator[Any]:
    return (network.get_layer(i) for i in range(network.num_layers))


def _create_builder(trt: Any, logger: Any, flavour: str) -> Any:
    try:
        return trt.Builder(logger)
    except (TypeError, RuntimeError) as error:  # TypeError: the library returned no builder
        raise ExportError(
            f"{flavour}: does not start ({' '.join(logger.errors[-3:]) or error}). Look at "
            "nvidia-smi, or use --plan tensorrt-rtx, which needs no GPU to build."
        ) from error


def _add_profile(builder: Any, config: Any, inputs: list[str], profile: Profile) -> None:
    optimization = builder.create_optimization_profile()
    for name in inputs:
        optimization.set_shape(name, profile.min, profile.opt, profile.max)
    if config.add_optimization_profile(optimization) < 0:
        raise ExportError(f"--plan-profile {profile}: TensorRT refused it. Choose another.")


def _logger(trt: Any) -> Any:
    """Keeps what TensorRT says is wrong, for the error that follows; all else is dropped."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(message.strip())

    return Logger()


def _write_timings(path: Path, data: bytes) -> None:
    try:
        write_whole(path, data)
    except OSError as error:
        raise ExportError(
            f"--timing-cache {path}: cannot be written ({error}). The plan was written."
        ) from error


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    return exit_code(lambda: _run(options), "interrupted: no plan was written")


def _run(options: argparse.Namespace) -> None:
    arguments = vars(options)
    started_s = time.perf_counter()

    def say(message: str) -> None:
        print(f"[{time.perf_counter() - started_s:5.1f} s] {message}", file=sys.stderr, flush=True)

    config = plan_config(arguments)
    folder = arguments["bundle"]
    manifest = read_manifest(folder)
    verify(folder, manifest)
    plan = build_plan(folder, manifest, config, say)
    if plan is None:
        raise ExportError("no plan was built. Install TensorRT as said above, or name a --plan.")
    if arguments["json"]:
        print_json({"path": str(plan.path), **json.loads(plan.info.dumps())})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bitheads plan",
        description="Build a TensorRT plan from a bundle's graph, and write it to the bundle's "
        "folder plans/. A plan of the same graph, TensorRT and GPUs is replaced.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    add_plan_options(parser)
    parser.add_argument("--json", action="store_true", help="print the plan's metadata as JSON")
    return parser


if __name__ == "__main__":
    leave(main())
