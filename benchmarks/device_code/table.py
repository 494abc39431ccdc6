"""The CUDA kernels as compiled, beside their predicted share."""

from __future__ import annotations

from typing import Any

from benchmarks import record
from benchmarks.pages.block import Block
from benchmarks.pages.markdown import source, table
from benchmarks.roofline.table import TASKS, heading, not_compiled, percent, tenths

SHAPE = "RoBERTa-large"


def measured(stored: dict[str, Any]) -> str:
    """What the compiler made of each family of kernels, beside its predicted share."""
    predicted = record.read("roofline")["result"]
    shape = predicted["shapes"][SHAPE]
    gpus = list(predicted["gpus"])
    head = ["kernels", "number", "registers", "spilled bytes", "shared bytes", "load width"]
    rows = []
    for name, family in stored["result"]["families"].items():
        kernel, _, path = name.partition(", ")
        # The scalar path is for odd dims and addresses, which no usual encoder has.
        work = None if path == "scalar" else shape["work_per_token"][TASKS].get(kernel)
        shares = [
            percent(shape["gpus"][gpu]["tasks"][TASKS][kernel]["share_of_encoder"]) if work else ""
            for gpu in gpus
        ]
        rows.append(
            [
                f"`{kernel}`{', ' + path if path else ''}",
                str(family["kernels"]),
                str(family["max_registers"]),
                str(family["max_spill_bytes"]),
                f"{family['max_shared_bytes']:,}",
                str(family["load_bytes"]),
                tenths(work["memory_bytes"], "B") if work else "",
                *shares,
            ]
        )
    architectures = stored["result"]["architectures"]
    lines = [
        *table([*head, "bytes a token", *heading(predicted)], rows),
        "",
        f"Most of any kernel and of {architectures[0]} to {architectures[-1]}; load width in bytes "
        f"a thread in the loops. Bytes and predicted shares of the encoder's time: {SHAPE}, "
        f"{TASKS} tasks.{not_compiled(predicted)}",
    ]
    return "\n".join([*lines, source(stored, f"{stored['result']['compiler']}, not run")])


BLOCKS = (Block("device_code", measured),)
