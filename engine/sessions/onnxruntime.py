"""The encoder on ONNX Runtime's CPU provider, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bitheads.engine.errors import BackendError
from bitheads.engine.process.cores import count_physical_cores
from bitheads.engine.process.forked import keep_in_children
from bitheads.engine.process.quiet_import import import_quietly
from bitheads.engine.sessions.compiled_graphs import CompiledGraphs
from bitheads.engine.types import TokenBatch

onnxruntime = import_quietly("onnxruntime")

LOG_ERRORS_ONLY = 3


class Session:
    """See engine.sessions.EncoderSession."""

    backend = "onnxruntime"
    precision = "fp32"

    def __init__(
        self,
        graph: Path,
        output_names: list[str],
        precision: str,
        threads: int | None,
        cache: CompiledGraphs | None = None,
    ) -> None:
        """cache: not used, a graph is loaded as it is."""
        if precision not in ("auto", "fp32"):
            raise BackendError(
                f"precision: got {precision!r}, but onnxruntime computes in fp32 on CPUs. "
                "Pass precision='auto', or backend='openvino'."
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = LOG_ERRORS_ONLY
        # As many as it takes by itself; but those it would bind to a processor each, and it knows
        # of no quota.
        options.intra_op_num_threads = threads or count_physical_cores()
        try:
            self._session = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exception classes share no base but Exception
            raise BackendError(
                f"onnxruntime cannot load {graph}: {error}. Export the bundle again, or try "
                "backend='openvino'."
            ) from error
        self._inputs = [port.name for port in self._session.get_inputs()]
        self._outputs = output_names
        keep_in_children(self)

    def run(self, batch: TokenBatch) -> list[NDArray[Any]]:
        feeds = {name: getattr(batch, name) for name in self._inputs}
        hidden_states: list[NDArray[Any]] = self._session.run(self._outputs, feeds)
        return hidden_states
