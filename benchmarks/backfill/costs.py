"""What encoding costs per machine, from stored results: a billion texts, and a stream of them."""

from __future__ import annotations

from typing import Any

from benchmarks import record
from benchmarks.figures.rounding import rounded
from benchmarks.gpu import report
from benchmarks.pages.markdown import table

DOLLARS_A_CORE_HOUR, DOLLARS_A_GPU_HOUR = 0.04, 4.0
"""Dollars that clouds ask for a core of a general machine, and for an H200 with its host."""

STREAM = 1000
"""Texts that come per second."""

BACKEND, TOKENS_A_CALL = "onnxruntime-cuda", "16384"


def by_machine(shapes: dict[str, Any]) -> list[str]:
    """A row per encoder and machine: hours and dollars for 10^9 texts, machines for the stream.

    Args:
        shapes: of the stored result of `backfill`, whose texts and core these are.
    """
    rows = []
    for name, shape in shapes.items():
        us = shape["encoding_us_a_text"]
        rows.append(_row(name, "a core of the machine above", us, "cores", DOLLARS_A_CORE_HOUR))
        rate = _tokens_a_second(name)
        if rate is not None:
            us = 1e6 * shape["tokens_a_text"] / rate
            rows.append(_row(name, "an NVIDIA H200", us, "GPUs", DOLLARS_A_GPU_HOUR))
    head = ["encoder", "on", "hours for a billion texts", "dollars", f"{STREAM:,} texts/s take"]
    return [
        *table(head, rows, left=2),
        "",
        f"At ${DOLLARS_A_CORE_HOUR:g} a core-hour and ${DOLLARS_A_GPU_HOUR:g} a GPU-hour, for "
        "texts of the length above; the GPU's rate is "
        "[what one did](#what-a-gpu-should-make-of-it), with "
        f"`{BACKEND}`, tokenizing and all heads. A stream is reckoned at full use: machines for "
        "its mean want room for its peaks.",
    ]


def _row(name: str, machine: str, us: float, unit: str, dollars: float) -> list[str]:
    hours = us * 1e3 / 3600
    return [
        name,
        machine,
        three_digits(hours),
        f"${three_digits(hours * dollars)}",
        f"{three_digits(STREAM * us / 1e6)} {unit}",
    ]


def _tokens_a_second(encoder: str) -> float | None:
    """What the GPU did, by the stored result of `gpu`; None if it has no such encoder."""
    if not record.exists("gpu"):
        return None
    for name, parts in record.read("gpu")["result"]["encoders"].items():
        speed = report.measured(parts.get("speed", {}).get(BACKEND))
        if name.startswith(encoder) and speed is not None:
            many = report.measured(speed["throughput"]["random lengths"].get(TOKENS_A_CALL))
            return None if many is None else float(many["tokens_per_s"])
    return None


def three_digits(value: float) -> str:
    """Three digits, and never an exponent: 0.258, 66.5, 31,100."""
    return f"{rounded(value, 3):,.10g}"
