"""Time and size of plans."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.block import Block
from benchmarks.pages.markdown import source


def measured(stored: dict[str, Any]) -> str:
    """A row per build."""
    result = stored["result"]
    rows = [
        "| shape | outputs | graph, MB | profiles | build, s | plan, MB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, shape in result["shapes"].items():
        for build in shape["builds"]:
            rows.append(
                f"| {name} | {shape['outputs']} | {shape['graph_bytes'] / 1e6:.1f} "
                f"| {len(build['profiles'])} | {build['build_s']:.0f} "
                f"| {build['plan_bytes'] / 1e6:.1f} |"
            )
    note = f" {result['note']}" if result["note"] else ""
    rows.append("")
    rows.append(
        f"tensorrt-rtx {result['version']}, one plan for compute capability "
        f"{', '.join(result['compute_capabilities'])}.{note}"
    )
    return "\n".join([*rows, source(stored)])


BLOCKS = (Block("plan", measured),)
