"""The encoder as a TensorRT plan, of TensorRT or TensorRT-RTX: one API, two modules."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bitheads.engine.bundle import GPU_GRAPHS, GRAPH, Manifest, graph_sha256
from bitheads.engine.device.driver import Device
from bitheads.engine.device.plan import MODULES, Plan, find_plan
from bitheads.engine.device.plan_compatibility import LATER_VERSIONS
from bitheads.engine.device.profile import choose_profile, max_rows
from bitheads.engine.errors import BackendError, DeviceMemoryError, PlanError
from bitheads.engine.process.install import how_to_install
from bitheads.engine.types import TokenBatch

EXTRAS = {"tensorrt": "gpu", "tensorrt-rtx": "rtx"}
"""Flavour of TensorRT -> the extra of bitheads that brings it."""

SILENT = "it did not say why"


def open_device_session(
    backend: str,
    folder: Path,
    manifest: Manifest,
    device: Device,
    stream: Any,
    precision: str = "auto",
) -> Session:
    """See engine.sessions.open_device_session."""
    graph_hash = graph_sha256(manifest.artifacts, GPU_GRAPHS.get(precision, GRAPH))
    trt, plan = find_fitting_plan(folder, graph_hash, device, precision)
    return Session(trt, plan, manifest.output_names, device, stream)


def find_fitting_plan(
    bundle: Path, graph_hash: str, device: Device, precision: str | None = None
) -> tuple[Any, Plan]:
    """The TensorRT module and the bundle's plan that fit this machine, TensorRT's own first.

    Args:
        precision: see engine.device.plan.find_plan.

    Raises BackendError if no flavour is installed, PlanError if no plan fits those that are.
    """
    installed = [flavour for flavour, module in MODULES.items() if find_spec(module) is not None]
    if not installed:
        fixes = " or ".join(how_to_install(extra) for extra in EXTRAS.values())
        raise BackendError(f"backend 'tensorrt' needs TensorRT. Type: {fixes}")
    misfits = []
    for flavour in installed:
        try:
            trt = import_module(MODULES[flavour])
        except (ImportError, OSError) as error:
            misfits.append(f"{MODULES[flavour]} cannot be imported ({error}).")
            continue
        try:
            plan = find_plan(
                bundle, graph_hash, flavour, trt.__version__, device.compute_capability, precision
            )
        except PlanError as error:
            misfits.append(str(error))
        else:
            return trt, plan
    raise PlanError("\n".join(misfits))


class Session:
    """See engine.device.session.DeviceSession.

    All execution contexts share one block of device memory for activations, as their calls follow
    one another on one stream: a context for each profile, and one for each shape that a CUDA graph
    holds on to.
    """

    def __init__(
        self,
        trt: Any,
        plan: Plan,
        output_names: Sequence[str],
        device: Device,
        stream: Any,
    ) -> None:
        """Loads the plan. Raises BackendError or PlanError if TensorRT refuses it."""
        self.backend = plan.info.flavour
        self.precision = plan.info.precision
        self.inputs = tuple(plan.info.inputs)
        self._outputs = list(output_names)
        self._plan = plan
        self._trt = trt
        self._device = device
        self.dtype = _common_dtype(plan, self.inputs, self._outputs)
        # Messages of the last failure, for the error that reports it.
        self._log = _logger(trt)
        self._runtime = trt.Runtime(self._log)
        if LATER_VERSIONS in plan.info.compatibility:
            # Such a plan brings the runtime that executes it, which is refused unasked. It was
            # trusted when it was loaded: any plan is machine code.
            self._runtime.engine_host_code_allowed = True
        with device.current("loading the plan"):
            self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
            if self._engine is None:
                raise PlanError(
                    f"plan {plan.path}: {plan.info.flavour} {trt.__version__} cannot load it on "
                    f"{device.name}: {self._log.last}. Build it again on this machine with "
                    "`bitheads plan`."
                )
            self._check_tensors()
            self._activation_bytes = int(self._engine.device_memory_size_v2)
            self._activations = device.cuda.mem_alloc(max(1, self._activation_bytes))
        self._contexts: dict[tuple[int, tuple[int, int] | None], Any] = {}
        # TensorRT-RTX compiles kernels for a shape behind the scenes, and records graphs by itself
        # once it has: what is captured from outside could be the slower first version.
        self.capturable = not hasattr(trt, "CudaGraphStrategy")
        self._stream = stream
        self._addresses: dict[str, int] = {}

    def max_tokens(self) -> int:
        return max(profile.max_tokens for profile in self._plan.profiles)

    def max_seq(self) -> int:
        return max(profile.max[1] for profile in self._plan.profiles)

    def max_rows(self, seq: int) -> int:
        return max_rows(self._plan.profiles, seq) if seq <= self.max_seq() else 0

    def bind(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        self._contexts.clear()  # they hold the addresses they were made with
        self._addresses = dict(
            zip([*self.inputs, *self._outputs], [*inputs, *outputs], strict=True)
        )

    def enqueue(self, rows: int, seq: int, keep: bool = False) -> None:
        profile = choose_profile(self._plan.profiles, rows, seq)
        key = profile, ((rows, seq) if keep else None)
        context = self._contexts.get(key)
        if context is None:
            context = self._contexts[key] = self._make_context(profile)
        for name in self.inputs:
            self._require(context.set_input_shape(name, (rows, seq)), f"{name} as {[rows, seq]}")
        self._require(context.execute_async_v3(self._stream.handle), f"a batch of {[rows, seq]}")

    def forget(self, rows: int, seq: int) -> None:
        for key in [key for key in self._contexts if key[1] == (rows, seq)]:
            del self._contexts[key]

    def close(self) -> None:
        self._contexts.clear()
        self._activations.free()
        self._engine = self._runtime = self._stream = None

    def _check_tensors(self) -> None:
        """The plan's tensors, as TensorRT sees them, are those of its metadata."""
        engine = self._engine
        names = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
        expected = {*self._plan.info.inputs, *self._plan.info.outputs}
        profiles = engine.num_optimization_profiles
        if names != expected or profiles != len(self._plan.profiles):
            raise PlanError(
                f"plan {self._plan.path}: got tensors {sorted(names)} and {profiles} profiles, "
                f"expected {sorted(expected)} and {len(self._plan.profiles)}. Build it again with "
                "`bitheads plan`."
            )

    def _make_context(self, profile: int) -> Any:
        trt = self._trt
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if hasattr(trt, "CudaGraphStrategy"):
            config = self._engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            with suppress(AttributeError):  # not in every version of TensorRT-RTX
                config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            context = self._engine.create_execution_context(config)
        else:
            context = self._engine.create_execution_context(strategy)
        if context is None:
            raise DeviceMemoryError(
                f"{self.backend} cannot make an execution context: {self._log.last}. The GPU's "
                "memory may be full: pass a smaller max_batch_tokens, or build the plan with "
                "smaller profiles."
            )
        context.set_device_memory(int(self._activations), self._activation_bytes)
        self._require(
            context.set_optimization_profile_async(profile, self._stream.handle),
            f"profile {profile}",
        )
        for name, address in self._addresses.items():
            self._require(context.set_tensor_address(name, address), f"the address of {name}")
        return context

    def _require(self, done: bool, what: str) -> None:
        if not done:
            said, self._log.last = self._log.last, SILENT  # it is not to explain a later failure
            kind = DeviceMemoryError if lacks_memory(said) else BackendError
            raise kind(f"{self.backend} refused {what}: {said}.")


def lacks_memory(said: str) -> bool:
    """Whether TensorRT's message is of memory that ran out, not of an access to what is none."""
    said = said.lower()
    return "memory" in said and "illegal" not in said


def _common_dtype(plan: Plan, inputs: Sequence[str], outputs: Sequence[str]) -> str:
    """The type of all outputs. Raises PlanError if the plan's tensors are not the bundle's."""
    info = plan.info
    dtypes = {info.outputs.get(name) for name in outputs}
    wrong = {name: dtype for name, dtype in info.inputs.items() if dtype != "int64"}
    unknown = set(inputs) - {f.name for f in fields(TokenBatch)}
    if unknown or wrong or len(dtypes) != 1 or None in dtypes:
        raise PlanError(
            f"plan {plan.path}: got inputs {dict(info.inputs)} and outputs {dict(info.outputs)}, "
            f"expected int64 token ids and masks, and {list(outputs)} of one type. Build it again "
            "with `bitheads plan`."
        )
    return str(dtypes.pop())


def _logger(trt: Any) -> Any:
    """A TensorRT logger that keeps the last error instead of printing it."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.last = SILENT

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.last = message

    return Logger()
