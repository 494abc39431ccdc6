"""`bitheads plan`: the graph of a bundle becomes a TensorRT plan in it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from bitheads.engine.bundle import read_manifest, verify
from bitheads.engine.commands.command_line import exit_code, leave
from bitheads.engine.process.json_lines import print_json
from bitheads.export.errors import ExportError
from bitheads.export.plans.build_plan import build_plan
from bitheads.export.plans.plan_config import add_plan_options, plan_config

EPILOG = """\
examples:
  bitheads plan --bundle bundles/all-MiniLM-L6-v2
  bitheads plan --bundle bundles/roberta --plan tensorrt-rtx --plan-capabilities 8.6,12.0
  bitheads plan --bundle bundles/all-MiniLM-L6-v2 --plan tensorrt \\
      --plan-compatibility version,ampere+
  bitheads plan --bundle bundles/roberta --plan-profile 1x1,1x64,1x512 \\
      --plan-profile 1x1,64x128,64x128
"""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    return exit_code(lambda: _run(options), "interrupted: no plan was written")


def _run(options: argparse.Namespace) -> None:
    arguments = vars(options)
    started_s = time.perf_counter()

    def say(message: str) -> None:
        print(f"[{time.perf_counter() - started_s:5.1f} s] {message}", file=sys.stderr, flush=True)

    config = plan_config(arguments)
    folder = arguments["bundle"]
    manifest = read_manifest(folder)
    verify(folder, manifest)
    plan = build_plan(folder, manifest, config, say)
    if plan is None:
        raise ExportError("no plan was built. Install TensorRT as said above, or name a --plan.")
    if arguments["json"]:
        print_json({"path": str(plan.path), **json.loads(plan.info.dumps())})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bitheads plan",
        description="Build a TensorRT plan from a bundle's graph, and write it to the bundle's "
        "folder plans/. A plan of the same graph, TensorRT and GPUs is replaced.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    add_plan_options(parser)
    parser.add_argument("--json", action="store_true", help="print the plan's metadata as JSON")
    return parser


if __name__ == "__main__":
    leave(main())
