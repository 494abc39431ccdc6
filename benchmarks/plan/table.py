"""Time and size of plans."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.block import Block
from benchmarks.pages.markdown import source, table


def measured(stored: dict[str, Any]) -> str:
    """A row per build."""
    result = stored["result"]
    rows = [
        [
            name,
            str(shape["outputs"]),
            f"{shape['graph_bytes'] / 1e6:.1f}",
            str(len(build["profiles"])),
            f"{build['build_s']:.0f}",
            f"{build['plan_bytes'] / 1e6:.1f}",
        ]
        for name, shape in result["shapes"].items()
        for build in shape["builds"]
    ]
    lines = table(["shape", "outputs", "graph, MB", "profiles", "build, s", "plan, MB"], rows)
    note = f" {result['note']}" if result["note"] else ""
    made = (
        f"tensorrt-rtx {result['version']}, one plan for compute capability "
        f"{', '.join(result['compute_capabilities'])}.{note}"
    )
    return "\n".join([*lines, "", made, source(stored)])


BLOCKS = (Block("plan", measured),)
