"""The project's own graph on OpenVINO and ONNX Runtime, used as their documentation says.

They stop at the hidden states: nothing is pooled or packed.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.encoder.runners.batches import Batch, OverBatches
from bitheads.engine import bundle
from bitheads.engine.process.quiet_import import import_quietly


class Plain(OverBatches):
    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__(request)
        folder = Path(request["bundle"])
        self._names = bundle.read_manifest(folder).output_names
        graph = folder / bundle.graph_file(request["precision"])
        self.load(graph, request["precision"], request["threads"])

    @abstractmethod
    def load(self, graph: Path, precision: str, threads: int) -> None: ...

    @abstractmethod
    def run(self, inputs: dict[str, NDArray[np.int64]]) -> list[NDArray[Any]]: ...

    def compute(self, batch: Batch) -> list[NDArray[Any]]:
        return self.run(batch.inputs)

    def layers(self, states: Any, what: str) -> list[NDArray[np.float32]]:
        return [np.asarray(layer, np.float32) for layer in states]


class OpenVino(Plain):
    def load(self, graph: Path, precision: str, threads: int) -> None:
        openvino = import_quietly("openvino")
        options: dict[str, int | str] = {"INFERENCE_NUM_THREADS": threads}
        if precision != "int8":  # what is not int8 there is left to OpenVINO
            options["INFERENCE_PRECISION_HINT"] = {"fp32": "f32", "bf16": "bf16"}[precision]
        self._model = openvino.Core().compile_model(graph, "CPU", options)
        self._inputs = [port.get_any_name() for port in self._model.inputs]

    def run(self, inputs: dict[str, NDArray[np.int64]]) -> list[NDArray[Any]]:
        found = self._model({name: inputs[name] for name in self._inputs})
        return [found[name] for name in self._names]


class OnnxRuntime(Plain):
    def load(self, graph: Path, precision: str, threads: int) -> None:
        onnxruntime = import_quietly("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._model = onnxruntime.InferenceSession(
            str(graph), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = [port.name for port in self._model.get_inputs()]

    def run(self, inputs: dict[str, NDArray[np.int64]]) -> list[NDArray[Any]]:
        found: list[NDArray[Any]] = self._model.run(
            self._names, {name: inputs[name] for name in self._inputs}
        )
        return found


LIBRARIES: dict[str, type[Plain]] = {"openvino": OpenVino, "onnxruntime": OnnxRuntime}


def make(request: dict[str, Any]) -> Plain:
    return LIBRARIES[request["library"]](request)
