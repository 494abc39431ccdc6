"""Who takes part: the name of each, and what its process is to be."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from bitheads.engine.bundle import QUANTIZED_GRAPHS
from bitheads.engine.errors import InputError
from bitheads.engine.sessions import is_installed, supports_bf16
from bitheads.export.comparison.parity import available_sessions

REFERENCE = "transformers"
OURS, PEER, PEAK = "ours", "peer", "peak"
CT2_TYPES = {"float32": "fp32", "int8": "int8", "bfloat16": "bf16", "int16": "int16"}


@dataclass(frozen=True)
class Contender:
    """One process.

    Attributes:
        module: of benchmarks.encoder.runners, imported by its own process alone.
        role: OURS, PEER or PEAK.
        precision: what it computes in, None if that is its own choice.
        seeded: whether it also runs on encoders without a source model's folder.
        options: what its module needs to know beside that.
        own_python: whether it may run in an environment of its own (--peers-python).
    """

    name: str
    module: str
    role: str
    precision: str | None
    seeded: bool = False
    options: dict[str, str] = field(default_factory=dict)
    own_python: bool = False


def chosen(only: Sequence[str] | None, quantized: Collection[str] = ()) -> list[Contender]:
    """Ours, and of the others those whose names begin as one of `only` says; None is all.

    Args:
        quantized: those of engine.bundle.QUANTIZED_GRAPHS that the bundle has.

    Raises InputError for a beginning that no name has.
    """
    everyone = all_contenders(quantized)
    if only is None:
        return everyone
    for beginning in only:
        if not any(c.name.startswith(beginning) for c in everyone):
            names = ", ".join(c.name for c in everyone)
            raise InputError(f"--only: got {beginning!r}, which begins none of: {names}.")
    return [c for c in everyone if c.role == OURS or c.name.startswith(tuple(only))]


def all_contenders(quantized: Collection[str] = ()) -> list[Contender]:
    """All of them; those whose package is missing say so when they start."""
    precisions = ["fp32", *(["bf16"] if supports_bf16("openvino") else [])]
    int8_too = ["int8"] if "int8" in quantized else []
    return [
        *(
            # Bundles of seeded encoders have no int8: it would calibrate on what means nothing.
            Contender(
                f"bitheads, {backend} {p}",
                "ours",
                OURS,
                p,
                p not in QUANTIZED_GRAPHS,
                {"backend": backend},
            )
            for backend, p in available_sessions(quantized)
        ),
        Contender(REFERENCE, "transformers_peer", PEER, "fp32", True),
        *(
            Contender(
                f"sentence-transformers, {backend}",
                "sentence_transformers_peer",
                PEER,
                None if backend == "openvino" else "fp32",
                options={"backend": backend},
                own_python=True,
            )
            for backend in ("torch", "onnx", "openvino")
        ),
        *(
            Contender(
                f"OpenVINO plain, {p}", "plain", PEER, p, p != "int8", {"library": "openvino"}
            )
            for p in (*precisions, *int8_too)
        ),
        *(
            [
                Contender(
                    "ONNX Runtime plain", "plain", PEER, "fp32", options={"library": "onnxruntime"}
                )
            ]
            if is_installed("onnxruntime")
            else []
        ),
        *(
            Contender(f"CTranslate2, {name}", "ctranslate2_peer", PEER, p, options={"type": name})
            for name, p in CT2_TYPES.items()
        ),
        *(
            Contender(f"matmul, {p}", "matmul", PEAK, p, p != "int8")
            for p in (*precisions, *int8_too)
        ),
    ]
