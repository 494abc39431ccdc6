"""`bitheads backfill`: answers of new tasks for every text of a store."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from bitheads.engine.commands.command_line import exit_code, say
from bitheads.engine.commands.job_options import (
    add_progress_option,
    add_runner_options,
    check_above_zero,
)
from bitheads.engine.jobs.backfill import Backfill, fitting_heads, read_heads
from bitheads.engine.progress import progress_bar
from bitheads.engine.store import FeatureStore

EPILOG = """\
examples:
  bitheads backfill --bundle B --store features --tasks sentiment topic --output answers
"""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    return exit_code(
        lambda: _run(options), "interrupted: what was answered is kept; run it again to go on"
    )


def _run(options: argparse.Namespace) -> None:
    check_above_zero("--threads", options.threads)
    check_above_zero("--workers", options.workers)
    started_s = time.monotonic()
    heads = read_heads(options.bundle, options.tasks)
    store = FeatureStore(options.store)
    if options.tasks is None:
        heads = fitting_heads(heads, store)
    job = Backfill(store, heads, options.output, options.probabilities)
    if store.forms is None and len({head.head.form for head in heads}) > 1:
        say(
            f"{store.folder} does not say which of its texts are pairs, as it was made by an "
            "earlier version: every head answers all of them. Ask for those that fit: --tasks."
        )
    with job.lock():
        parts = job.prepare()
        with progress_bar(sum(p.rows for p in parts), options.progress, "backfill") as bar:
            if options.runner == "ray":
                from bitheads.engine.jobs.ray_jobs import BackfillJob, Workers, backfill_on_ray

                on_ray = BackfillJob(
                    options.bundle,
                    options.store,
                    options.output,
                    None if options.tasks is None else tuple(options.tasks),
                    options.probabilities,
                )
                workers = Workers(options.workers, options.threads or 1)
                texts = backfill_on_ray(on_ray, job, parts, workers, bar)
            else:
                texts = job.run(parts, options.threads, bar)
    seconds = time.monotonic() - started_s
    print(
        f"{texts:,} texts, {len(heads)} tasks in {seconds:,.1f} s; {len(store) - texts:,} texts "
        f"were answered before"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bitheads backfill",
        description="Answers tasks for every text of a feature store, one row per text and task. "
        "Run it again and it goes on where it ended.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--bundle", type=Path, required=True, metavar="DIR", help="with the heads")
    add("--store", required=True, metavar="DIR", help="a folder or a URI")
    add(
        "--output",
        required=True,
        metavar="DIR",
        help="a folder or a URI, for this store alone; it gets one folder per task",
    )
    add("--tasks", nargs="+", metavar="TASK", help="(default: all heads of the bundle)")
    add(
        "--probabilities",
        action="store_true",
        help="write the probabilities of all labels, where a head has labels",
    )
    add(
        "--threads",
        type=int,
        help="processor threads that run the heads (default: all cores; with --runner ray 1)",
    )
    add_runner_options(parser)
    add_progress_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
