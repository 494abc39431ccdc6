"""What the machine can do: one large matrix product on OpenVINO at a precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitheads.engine.sessions.openvino_core import openvino, the_core

opset13 = openvino.opset13


class Matmul:
    """Square matrices, the second one constant, as weights are.

    In int8 the first is unsigned bytes, the second signed bytes with a step per output, and the
    product float32 again: what a quantized dense layer does.
    """

    gives = None

    def __init__(self, request: dict[str, Any]) -> None:
        size = request["matmul_size"]
        rng = np.random.default_rng(0)
        is_int8 = request["precision"] == "int8"
        self._input = rng.standard_normal((size, size), np.float32)
        parameter = opset13.parameter([size, size], np.float32)
        if is_int8:
            quantized = opset13.fake_quantize(parameter, *map(np.float32, (-4, 4, -4, 4)), 256)
            steps = opset13.constant(np.full((1, size), 0.03, np.float32))
            integers = opset13.constant(rng.integers(-127, 128, (size, size), np.int8))
            weights = opset13.multiply(opset13.convert(integers, np.float32), steps)
            product = opset13.matmul(quantized, weights, False, False)
        else:
            weights = opset13.constant(rng.standard_normal((size, size), np.float32))
            product = opset13.matmul(parameter, weights, False, False)
        hint = "bf16" if request["precision"] == "bf16" else "f32"
        options = {"INFERENCE_NUM_THREADS": request["threads"], "INFERENCE_PRECISION_HINT": hint}
        model = openvino.Model([product], [parameter], "matmul")
        self._request = the_core().compile_model(model, "CPU", options).create_infer_request()

    def encode(self) -> None:
        self._request.infer([self._input], share_inputs=True)

    def padding_share(self) -> float | None:
        return None

    def signs(self, what: str) -> NDArray[np.uint8]:
        raise NotImplementedError


def make(request: dict[str, Any]) -> Matmul:
    return Matmul(request)
