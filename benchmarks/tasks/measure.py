"""The paper's Figure 4: what a text costs by the number of tasks, counted and measured.

Three ways to answer k tasks: a large encoder fine-tuned for each, a distilled encoder for each, one
large encoder that all share with a head for each. Nothing is measured here: the times are those
that `python -m benchmarks heads` stored.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks import record
from benchmarks.figures import flops
from benchmarks.figures.rounding import rounded
from benchmarks.heads.cases import FULL
from benchmarks.heads.encoders import DISTILLED
from benchmarks.inputs.shapes import CLASSES, SHAPES, TEXT_TOKENS
from benchmarks.options import command
from benchmarks.tasks import plot
from benchmarks.tasks.curves import Cost, Curves, HeadTimes, Line, Shared, cheaper_from
from bitheads.engine.commands.command_line import say
from bitheads.engine.errors import InputError

ENCODER = "RoBERTa-large"
CODES = "sign"
MOST_TASKS = 100
SHOWN = (1, 2, 5, 7, 8, 10, 14, 20, 50, 100)
FINE_TUNED = "fine-tuned encoder a task"
DISTILLED_EACH = "distilled encoder a task"
PAPER_HEADS = "shared encoder, the paper's heads"
HEADS = "shared encoder, folded heads"

MADE_UP = {
    "encoders": {
        ENCODER: {"us_per_text": {"us": 70_000.0}, "packing_us": 700.0, "precision": "none"},
        DISTILLED: {"us_per_text": {"us": 10_000.0}, "own_head_us": 30.0},
    },
    "cells": [
        {
            "shape": ENCODER,
            "codes": CODES,
            "tasks": tasks,
            "us_per_text_and_task": {"serial": {"us": 30.0}},
        }
        for tasks in (1, 14, 100)
    ],
    "level": "serial",
}
"""Result of `heads` for a quick run, which needs no stored one."""


def run(options: argparse.Namespace) -> None:
    """Computes, plots and stores results/tasks.json; a quick run only prints.

    Raises InputError if there are no times, or no matplotlib.
    """
    if options.quick:
        heads: dict[str, Any] = {"result": MADE_UP}
    elif not record.exists("heads"):
        raise InputError(
            "the times of encoders and heads were not measured yet. Type: python -m benchmarks "
            "heads"
        )
    else:
        heads = record.read("heads")
    panels = {"gflops": counted(), "us": timed(heads["result"])}
    result = {
        "quick": options.quick,
        "encoder": ENCODER,
        "text_tokens": TEXT_TOKENS,
        "classes": CLASSES,
        "times_of": {
            **{name: heads.get(name, "made up") for name in ("command", "date", "commit", "cpu")},
            "precision": heads["result"]["encoders"][ENCODER]["precision"],
            "level": heads["result"]["level"],
            "threads": 1,
        },
        **{name: described(curves) for name, curves in panels.items()},
    }
    if options.quick:
        record.show("tasks", command("tasks", options), result)
        return
    picture = plot.draw(panels, MOST_TASKS)
    options.plot.parent.mkdir(parents=True, exist_ok=True)
    options.plot.write_bytes(picture)
    say(f"wrote {options.plot}")
    record.write("tasks", command("tasks", options), result)


def counted() -> Curves:
    """Billions of operations per text, two for each multiply-add, as in the paper."""
    large, small = SHAPES[ENCODER], FULL.distilled
    folded = flops.folded_head(TEXT_TOKENS, large.attention_heads, large.dim)
    paper = flops.usual_head(large.dim, TEXT_TOKENS, CLASSES)
    shared = flops.encoder(large, TEXT_TOKENS)
    own = shared + flops.first_token_head(large.dim, CLASSES)
    distilled = flops.encoder(small, TEXT_TOKENS) + flops.first_token_head(small.dim, CLASSES)
    billions = 2 / 1e9
    return {
        FINE_TUNED: Line(0.0, own * billions),
        DISTILLED_EACH: Line(0.0, distilled * billions),
        PAPER_HEADS: Line(shared * billions, paper * billions),
        HEADS: Line(shared * billions, folded * billions),
    }


def timed(heads: dict[str, Any]) -> Curves:
    """Microseconds per text, from a result of `python -m benchmarks heads`.

    The head of a fine-tuned large encoder was not timed and is left out, which favours it by less
    than 0.1%.

    Raises InputError if that result has no encoders.
    """
    if ENCODER not in heads.get("encoders", {}):
        raise InputError(
            f"the stored result of `heads` has no times of {ENCODER}. Type: python -m benchmarks "
            "heads, without --skip-encoder."
        )
    large, small = heads["encoders"][ENCODER], heads["encoders"][DISTILLED]
    level = heads["level"]
    totals = {
        cell["tasks"]: cell["us_per_text_and_task"][level]["us"] * cell["tasks"]
        for cell in heads["cells"]
        if (cell["shape"], cell["codes"]) == (ENCODER, CODES)
    }
    once = large["us_per_text"]["us"]
    return {
        FINE_TUNED: Line(0.0, once),
        DISTILLED_EACH: Line(0.0, small["us_per_text"]["us"] + small["own_head_us"]),
        HEADS: Shared(once + large["packing_us"], HeadTimes(totals)),
    }


def described(curves: Curves) -> dict[str, Any]:
    """Costs at some numbers of tasks, and from how many each shared way is the cheapest."""
    apart = [name for name in curves if name in (FINE_TUNED, DISTILLED_EACH)]
    return {
        "tasks": list(SHOWN),
        "costs": {name: [rounded(cost(k)) for k in SHOWN] for name, cost in curves.items()},
        "cheaper_from_tasks": {
            name: {other: cheaper_from(cost, curves[other], MOST_TASKS) for other in apart}
            for name, cost in _shared(curves).items()
        },
    }


def _shared(curves: Curves) -> dict[str, Cost]:
    return {name: cost for name, cost in curves.items() if name in (PAPER_HEADS, HEADS)}
