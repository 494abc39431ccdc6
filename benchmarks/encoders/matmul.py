"""What the machine can do: one large matrix product on OpenVINO at a precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13


class Matmul:
    """Square matrices, the second one constant, as weights are."""

    gives = None

    def __init__(self, request: dict[str, Any]) -> None:
        size = request["matmul_size"]
        rng = np.random.default_rng(0)
        self._input = rng.standard_normal((size, size), np.float32)
        weights = opset13.constant(rng.standard_normal((size, size), np.float32))
        parameter = opset13.parameter([size, size], np.float32)
        product = opset13.matmul(parameter, weights, False, False)
        hint = {"fp32": "f32", "bf16": "bf16"}[request["precision"]]
        options = {"INFERENCE_NUM_THREADS": request["threads"], "INFERENCE_PRECISION_HINT": hint}
        model = openvino.Model([product], [parameter], "matmul")
        self._request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()

    def encode(self) -> None:
        self._request.infer([self._input], share_inputs=True)

    def padding_share(self) -> float | None:
        return None

    def signs(self, what: str) -> NDArray[np.uint8]:
        raise NotImplementedError


def make(request: dict[str, Any]) -> Matmul:
    return Matmul(request)
