"""The picture and table of cost by number of tasks."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.block import Block
from benchmarks.pages.markdown import duration, source, table

PICTURE = "tasks.png"


def measured(stored: dict[str, Any]) -> str:
    """The picture, a row per number of tasks, and where the ways cross."""
    result = stored["result"]
    gflops, us = result["gflops"], result["us"]
    columns = [
        *((f"{way}, GFLOPs", [f"{cost:,.4g}" for cost in gflops["costs"][way]])
          for way in gflops["costs"]),
        *((f"{way}, time", [duration(cost) for cost in us["costs"][way]]) for way in us["costs"]),
    ]  # fmt: skip
    rows = [
        f"![Cost of a text by number of tasks]({PICTURE})",
        "",
        *table(
            ["tasks", *(name for name, _ in columns)],
            zip(map(str, gflops["tasks"]), *(cells for _, cells in columns), strict=True),
            left=0,
        ),
    ]
    times = result["times_of"]
    rows += [
        "",
        f"Texts of {result['text_tokens']} tokens, the shared and the fine-tuned encoder of "
        f"{result['encoder']}'s shape, the distilled one of 6 layers and dim 768. "
        f"{_crossings('In FLOPs', gflops)} {_crossings('In time', us)} Times are of one thread "
        f"({times['precision']} encoders on OpenVINO, heads at `{times['level']}` on signs), as "
        f"`{times['command']}` measured them on {times['date']}, {times['cpu']}.",
    ]
    return "\n".join([*rows, source(stored, "computed from those times")])


def _crossings(kind: str, panel: dict[str, Any]) -> str:
    parts = []
    for way, others in panel["cheaper_from_tasks"].items():
        for other, tasks in others.items():
            when = "never" if tasks is None else f"from {tasks} task{'s'[: tasks > 1]} on"
            parts.append(f"{way} beats {other} {when}")
    return f"{kind}: {'; '.join(parts)}."


BLOCKS = (Block("tasks", measured),)
