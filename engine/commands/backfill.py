"""`bitheads backfill`: answers of new tasks for every text of a store, or for pairs of them."""

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
from bitheads.engine.errors import InputError
from bitheads.engine.heads.head import is_of_words
from bitheads.engine.jobs.answers import OTHER_HEADS, TaskHead
from bitheads.engine.jobs.backfill import Backfill, fitting_heads, read_heads
from bitheads.engine.jobs.backfill_pairs import PairsBackfill
from bitheads.engine.jobs.pairs_file import PairsFile
from bitheads.engine.progress import progress_bar
from bitheads.engine.store import FeatureStore
from bitheads.engine.texts.forms import reads_apart
from bitheads.engine.texts.tables import QUOTES, QUOTES_HELP
from bitheads.engine.texts.text_files import SUFFIXES

EPILOG = """\
examples:
  bitheads backfill --bundle B --store features --tasks sentiment topic --output answers
  bitheads backfill --head new-topic.safetensors --store features --output answers \\
      --other-heads replace
  bitheads backfill --bundle B --store features --pairs pairs.tsv --output answers-of-pairs
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
    if options.head and options.tasks is not None:
        raise InputError(
            "--tasks: got it with --head, whose files say their tasks. Leave one of them out."
        )
    heads = read_heads(options.bundle, options.tasks, options.head)
    store = FeatureStore(options.store)
    if options.pairs is not None:
        told = _answer_pairs(options, heads, store)
    else:
        told = _answer_texts(options, heads, store)
    done, before, tasks, what = told
    seconds = time.monotonic() - started_s
    print(
        f"{done:,} {what}, {tasks} tasks in {seconds:,.1f} s; {before:,} {what} were answered "
        "before"
    )


def _answer_texts(
    options: argparse.Namespace, heads: list[TaskHead], store: FeatureStore
) -> tuple[int, int, int, str]:
    """How many texts were answered, how many had been, of how many tasks."""
    if options.quotes is not None:
        raise InputError("--quotes: is about a file of --pairs, which was not named. Leave it out.")
    if _takes_what_fits(options):
        found, heads = heads, fitting_heads(heads, store)
        _say_without_words(found, heads, store)
        _say_without_pairs(found, heads)
    job = Backfill(
        store, heads, options.output, options.probabilities, other_heads=options.other_heads
    )
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
                    tuple(options.head),
                    options.other_heads,
                )
                workers = Workers(options.workers, options.threads or 1)
                texts = backfill_on_ray(on_ray, job, parts, workers, bar)
            else:
                texts = job.run(parts, options.threads, bar)
    return texts, len(store) - texts, len(heads), "texts"


def _answer_pairs(
    options: argparse.Namespace, heads: list[TaskHead], store: FeatureStore
) -> tuple[int, int, int, str]:
    """The same of pairs."""
    if options.runner == "ray":
        raise InputError(
            "--runner ray: got it with --pairs, which one machine answers. Leave one of them out."
        )
    if _takes_what_fits(options):
        heads = [head for head in heads if reads_apart(head.head)]
        if not heads:
            raise InputError(
                f"--pairs: none of the heads of bundle {options.bundle} reads two texts that were "
                "encoded by themselves. Train one: `bitheads train-head --form two_texts`."
            )
    pairs = PairsFile(options.pairs, options.quotes)
    job = PairsBackfill(
        store,
        heads,
        pairs,
        options.output,
        options.probabilities,
        other_heads=options.other_heads,
    )
    with job.lock():
        blocks = job.prepare()
        left, total = (sum(block.rows for block in some) for some in (blocks, job.blocks))
        with progress_bar(left, options.progress, "backfill") as bar:
            done = job.run(blocks, options.threads, bar)
    return done, total - left, len(heads), "pairs"


def _takes_what_fits(options: argparse.Namespace) -> bool:
    """Whether heads that do not fit are left out: those that were named must."""
    return options.tasks is None and not options.head


def _say_without_words(found: list[TaskHead], fitting: list[TaskHead], store: FeatureStore) -> None:
    """Which of a bundle's heads would read words that the store does not keep."""
    left_out = [one.head.task for one in found if one not in fitting and is_of_words(one.head)]
    if left_out and not store.has_words:
        say(
            f"{store.folder} keeps no words of its texts, of which spans are made, so there are no "
            f"answers of {', '.join(left_out)}. Encode the texts with `bitheads encode --spans` "
            "into another store."
        )


def _say_without_pairs(found: list[TaskHead], fitting: list[TaskHead]) -> None:
    """Which of a bundle's heads would read two texts, and nothing says which."""
    left_out = [one.head.task for one in found if one not in fitting and reads_apart(one.head)]
    if left_out:
        say(
            f"there are no answers of {', '.join(left_out)}, which read two texts: say which go "
            "together in a file of ids, --pairs."
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bitheads backfill",
        description="Answers tasks for every text of a feature store, or for pairs of its texts, "
        "one row per text, or pair, and task. Run it again and it goes on where it ended.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    heads = parser.add_mutually_exclusive_group(required=True)
    heads.add_argument("--bundle", type=Path, metavar="DIR", help="with the heads")
    heads.add_argument(
        "--head",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="heads that are in no bundle, of the store's feature spec, one per task",
    )
    add("--store", required=True, metavar="DIR", help="a folder or a URI")
    add(
        "--output",
        required=True,
        metavar="DIR",
        help="a folder or a URI, for this store alone, or this file of pairs; it gets one folder "
        "per task",
    )
    add("--tasks", nargs="+", metavar="TASK", help="(default: all heads of the bundle)")
    add(
        "--pairs",
        type=Path,
        metavar="FILE",
        help="answer pairs of the store's texts, by heads of the form two_texts: a table "
        f"({', '.join(s for s in SUFFIXES if s != '.txt')}) with the columns id_a and id_b",
    )
    add("--quotes", choices=QUOTES, help=QUOTES_HELP)
    add(
        "--probabilities",
        action="store_true",
        help="write the probabilities of all labels, where a head has labels",
    )
    add(
        "--other-heads",
        choices=OTHER_HEADS,
        default="refuse",
        help="what to do with a task's answers of another head: `replace` them, file by file, or "
        "`keep` them beside the new ones, in a folder per head (default: %(default)s)",
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
