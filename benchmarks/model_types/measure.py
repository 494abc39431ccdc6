"""Each model type through the whole build, its usual tokenizer as a graph, a plan of it.

Each in a process of its own, so that one that fails is a row and not the end.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from benchmarks import ROOT, record
from benchmarks.inputs.model_types import REFUSED, TYPES
from benchmarks.inputs.tokenizer_kinds import KINDS
from benchmarks.options import command
from benchmarks.processes import child
from bitheads.engine.commands.command_line import say
from bitheads.engine.errors import InputError

KEPT = ROOT / "build" / "model_types.json"
"""What a run has measured so far."""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Threads that wait for each other are slow on tiny models."""


def run(options: argparse.Namespace) -> None:
    """Measures and stores results/model_types.json; a quick run only prints.

    Raises InputError for types that there are not.
    """
    known = [*TYPES, *REFUSED]
    if unknown := sorted(set(options.types) - set(known)):
        raise InputError(f"--types: got {unknown}, expected some of {known}.")
    found = _begin(options)
    jobs = _jobs(options)
    for number, request in enumerate(jobs, 1):
        rows = found.setdefault(request["part"], {})
        if options.resume and request["name"] in rows:
            continue
        say(f"{number} of {len(jobs)}: {request['part']}, {request['name']}")
        rows[request["name"]] = _row(request)
        if not options.quick:
            KEPT.parent.mkdir(exist_ok=True)
            KEPT.write_text(json.dumps(found), encoding="utf-8")
    record.keep("model_types", command("model_types", options), found, options.quick)
    if not options.quick:
        KEPT.unlink(missing_ok=True)


def _begin(options: argparse.Namespace) -> dict[str, Any]:
    """What is there of an earlier run."""
    if options.resume and KEPT.exists():
        kept: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8"))
        return kept
    if options.types and not options.quick and record.exists("model_types"):
        stored: dict[str, Any] = record.read("model_types")["result"]
        return stored
    return {}


def _jobs(options: argparse.Namespace) -> list[dict[str, Any]]:
    types = list(TYPES)[:1] if options.quick else options.types or [*TYPES, *REFUSED]
    kinds = [] if options.types else list(KINDS)[: 1 if options.quick else None]
    jobs = [{"part": "types", "name": name} for name in types]
    jobs += [{"part": "tokenizers", "name": name} for name in kinds]
    if options.published is not None:
        files = sorted(options.published.resolve().glob("*/tokenizer.json"))
        if not files:
            raise InputError(f"--published {options.published}: no */tokenizer.json in it.")
        jobs += [
            {"part": "published", "name": file.parent.name, "file": str(file)} for file in files
        ]
    return jobs


def _row(request: dict[str, Any]) -> dict[str, Any]:
    try:
        answer = child.run("benchmarks.model_types.child", request, ONE_THREAD)
    except child.ChildError as error:
        say(str(error))
        return {"failed": str(error)}
    del answer["started_s"]
    return answer
