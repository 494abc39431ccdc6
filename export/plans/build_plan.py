"""The graph of a bundle becomes a TensorRT plan in it (engine.device.plan)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bitheads.engine.bundle import GPU_GRAPHS, GRAPH, Manifest, graph_sha256
from bitheads.engine.device.plan import Plan, PlanInfo, write_plan
from bitheads.engine.device.profile import Profile
from bitheads.engine.files.whole_file import write_whole
from bitheads.engine.process.plain_numbers import plain_numbers
from bitheads.export.errors import ExportError
from bitheads.export.plans import tensorrt_module
from bitheads.export.plans.network_checks import check_numerics, check_tensors
from bitheads.export.plans.plan_config import NO_PLAN, PlanConfig, default_profiles
from bitheads.export.plans.plan_progress import build_serialized

Say = Callable[[str], None]


def resolve_plan(config: PlanConfig, say: Say = lambda message: None) -> PlanConfig:
    """The same plan with its flavour and compute capabilities settled, to be asked before the work.

    Raises ExportError for what cannot be built here.
    """
    flavour = tensorrt_module.choose_flavour(config.flavour, say)
    if flavour is None:
        return replace(NO_PLAN, precision=config.precision)
    if config.timing_cache is not None:
        tensorrt_module.check_timing_cache(flavour)
    trt = tensorrt_module.load(flavour)
    capabilities = tensorrt_module.check_capabilities(
        trt, flavour, config.capabilities, config.precision
    )
    tensorrt_module.check_compatibility(trt, flavour, config.compatibility, capabilities)
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
    graph = _graph_of(bundle_folder, manifest, config.precision)
    config.check_max_length(manifest.encoder.max_length)
    profiles = config.profiles or default_profiles(manifest.encoder.max_length)
    trt = tensorrt_module.load(flavour)
    logger = _logger(trt)
    builder = _create_builder(trt, logger, flavour)
    network = tensorrt_module.create_network(trt, builder)
    parser = trt.OnnxParser(network, logger)  # owns the weights: lives until the build ends
    if not parser.parse_from_file(str(bundle_folder / graph)):
        errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise ExportError(f"{flavour}: cannot read {bundle_folder / graph}: {'; '.join(errors)}.")
    inputs, outputs = check_tensors(network, manifest)
    check_numerics(trt, network)

    builder_config = builder.create_builder_config()
    tensorrt_module.no_tf32(trt, builder_config)
    tensorrt_module.target(trt, builder_config, flavour, capabilities)
    tensorrt_module.make_compatible(trt, builder_config, config.compatibility)
    workspace = trt.MemoryPoolType.WORKSPACE
    if config.workspace_gib is not None:
        builder_config.set_memory_pool_limit(workspace, int(config.workspace_gib * (1 << 30)))
    for profile in profiles:
        _add_profile(builder, builder_config, list(inputs), profile)
    timings = None
    if config.timing_cache is not None:
        timings = tensorrt_module.use_timing_cache(builder_config, config.timing_cache)
    and_more = f" ({', '.join(config.compatibility)})" if config.compatibility else ""
    say(
        f"{flavour} {trt.__version__}: building for compute capability {', '.join(capabilities)}"
        f"{and_more}, {len(profiles)} profiles"
    )
    data = build_serialized(trt, builder, network, builder_config)
    if data is None:
        raise ExportError(
            f"{flavour}: cannot build a plan: {' '.join(logger.errors[-3:]) or 'it says no more'}. "
            "Try a larger --plan-workspace, or smaller profiles (--plan-profile)."
        )
    info = PlanInfo(
        graph_sha256=graph_sha256(manifest.artifacts, graph),
        flavour=flavour,
        version=trt.__version__,
        compute_capabilities=capabilities,
        precision=config.precision or manifest.encoder.precision,
        profiles=profiles,
        inputs=inputs,
        outputs=outputs,
        plan_bytes=memoryview(data).nbytes,
        plan_sha256=hashlib.sha256(data).hexdigest(),
        options={
            "workspace_bytes": builder_config.get_memory_pool_limit(workspace),
            "tf32": False,
        },
        compatibility=config.compatibility,
    )
    plan = write_plan(bundle_folder, info, data)
    if timings is not None and config.timing_cache is not None:
        _write_timings(config.timing_cache, timings())
    say(f"wrote {plan.path.name}, {info.plan_bytes / 1e6:.1f} MB")
    return plan


def _graph_of(bundle_folder: Path, manifest: Manifest, precision: str | None) -> str:
    """The graph's file. Raises ExportError if the bundle does not have it in this precision."""
    if precision is None:
        return GRAPH
    graph = GPU_GRAPHS[precision]
    if graph not in manifest.artifacts:
        raise ExportError(
            f"--plan-precision {precision}: bundle {bundle_folder} has no {graph}. Build it with "
            f"the options it was built with, and this one: bitheads build --plan-precision "
            f"{precision} --encoder {manifest.spec.encoder} --output {bundle_folder} --force"
        )
    return graph


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
