"""The exported graph in int8, as OpenVINO IR: products of weights in 8 bits, the rest as it was.

Post-training quantization by NNCF. Weights get a step per output channel, activations one range per
tensor, seen on real token batches. SmoothQuant first moves the outliers of activations into the
weights. `benchmarks/LOG.md` has what was tried.
"""

from __future__ import annotations

import io
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bitheads.engine.bundle import INT8_GRAPH, INT8_WEIGHTS
from bitheads.engine.process.quiet_import import import_quietly
from bitheads.engine.types import TokenBatch
from bitheads.export.errors import ExportError

Say = Callable[[str], None]

SMOOTHING = 0.9
"""Share of an outlier that moves into the weights: SmoothQuant's alpha."""

UNSMOOTHED = -1.0
"""The alpha by which NNCF leaves a kind of operator as it is."""
SAY_EVERY_S = 10.0


def require_nncf() -> None:
    """Raises ExportError, with what to type, unless NNCF and OpenVINO are installed."""
    for module in ("nncf", "openvino"):
        if find_spec(module) is None:
            raise ExportError(
                f"--precision int8 needs the package {module!r}. Type: pip install 'bitheads[int8]'"
            )


def quantize_graph(
    graph: Path, batches: Sequence[TokenBatch], folder: Path, say: Say = lambda message: None
) -> list[Path]:
    """Writes encoder_int8.xml and encoder_int8.bin into `folder` and returns their paths.

    Inputs and outputs have the names, types and axes of `graph`'s.

    Args:
        graph: the bundle's ONNX file.
        batches: real texts, as the engine would batch them.
        say: called with a line now and then.

    Raises ExportError if NNCF is not installed or refuses the graph.
    """
    require_nncf()
    from bitheads.engine.sessions.openvino_core import openvino, the_core

    core = the_core()
    model = core.read_model(graph)
    inputs = [port.get_any_name() for port in model.inputs]
    seen = _Batches(batches, inputs, say)
    with _quiet(), _one_core(openvino, core):
        nncf = _import_nncf()
        advanced = nncf.AdvancedQuantizationParameters(
            # It moved no sign in a thousand, and takes a third pass over the batches.
            disable_bias_correction=True,
            smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(
                matmul=SMOOTHING, convolution=UNSMOOTHED
            ),
        )
        try:
            quantized = nncf.quantize(
                model,
                nncf.Dataset(seen),
                subset_size=len(batches),
                model_type=nncf.ModelType.TRANSFORMER,
                ignored_scope=nncf.IgnoredScope(names=left_out(model), validate=False),
                advanced_parameters=advanced,
            )
        except (RuntimeError, ValueError, nncf.InternalError, nncf.ValidationError) as error:
            raise ExportError(
                f"--precision int8: NNCF cannot quantize {graph.name} ({error}). Use --precision "
                "fp16, or other calibration texts (--calibration)."
            ) from error
    path = folder / INT8_GRAPH
    # What is not in 8 bits keeps the type the graph gave it.
    openvino.save_model(quantized, path, compress_to_fp16=False)
    return [path, folder / INT8_WEIGHTS]


def left_out(model: Any) -> list[str]:
    """Names of what stays in floating point: products of two activations, and embeddings.

    A softmax has most of its weights far below the largest, where 8 bits have no step left, and
    attention is a small part of the products. Rows of embeddings are only looked up, so 8 bits
    would save no time.

    Args:
        model: an openvino.Model.
    """
    names = []
    for node in model.get_ops():
        kind = node.get_type_name()
        if kind == "Gather" or (
            kind == "MatMul" and not any(_is_constant(node.input_value(i)) for i in (0, 1))
        ):
            names.append(node.get_friendly_name())
    return sorted(names)


def _is_constant(value: Any) -> bool:
    """Whether it is a weight, maybe transposed or cast."""
    node = value.get_node()
    if node.get_type_name() in ("Convert", "Transpose", "Reshape"):
        return _is_constant(node.input_value(0))
    return bool(node.get_type_name() == "Constant")


class _Batches:
    """The batches as NNCF reads them, once per pass; says how far it is."""

    def __init__(self, batches: Sequence[TokenBatch], inputs: Sequence[str], say: Say) -> None:
        self._batches = batches
        self._inputs = inputs
        self._say = say
        self._passes = 0

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._passes += 1
        said_s = time.perf_counter()
        for i, batch in enumerate(self._batches):
            if time.perf_counter() - said_s > SAY_EVERY_S:
                self._say(f"int8: pass {self._passes}, {i} of {len(self)} batches")
                said_s = time.perf_counter()
            yield {name: getattr(batch, name) for name in self._inputs}


def _import_nncf() -> Any:
    """NNCF without its telemetry, which would write to the user's home and call a server."""
    logger_class = logging.getLoggerClass()
    try:
        nncf = import_quietly("nncf")
    finally:
        logging.setLoggerClass(logger_class)  # it sets its own for everybody
    nncf.set_log_level(logging.ERROR)
    return nncf


@contextmanager
def _one_core(openvino: Any, core: Any) -> Iterator[None]:
    """Hands NNCF our core: it would make others, though there is to be one in a process."""
    core_class = openvino.Core
    openvino.Core = lambda: core
    try:
        yield
    finally:
        openvino.Core = core_class


@contextmanager
def _quiet() -> Iterator[None]:
    """Drops NNCF's progress bars, which go to standard output, and its dependencies' warnings."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
