"""`bitheads store`: looks at a feature store, checks it, merges its parts, deletes texts."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from bitheads.engine.commands.command_line import exit_code, say
from bitheads.engine.commands.job_options import check_above_zero
from bitheads.engine.errors import InputError, StoreError
from bitheads.engine.features.spec import FeatureSpec
from bitheads.engine.files.whole_file import write_whole
from bitheads.engine.jobs.ids_file import read_ids
from bitheads.engine.process.json_lines import print_json
from bitheads.engine.progress import progress_bar
from bitheads.engine.store import FeatureStore, compact, delete, verify, verify_answers
from bitheads.engine.store.answer_folders import answer_folders
from bitheads.engine.store.folder import Folder
from bitheads.engine.store.part import SUFFIX
from bitheads.engine.store.part_writer import PART_BYTES
from bitheads.engine.texts.tables import QUOTES, QUOTES_HELP


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    run = {"info": _info, "verify": _verify, "compact": _compact, "delete": _delete}[
        options.command
    ]
    return exit_code(lambda: run(options), "interrupted: every part there is whole")


def _info(options: argparse.Namespace) -> None:
    info = FeatureStore(options.store).info()
    if options.json:
        print_json(info.to_json())
        return
    print(f"{info.rows:,} texts, {info.tokens:,} tokens, {info.parts} parts")
    print(
        f"{info.bytes:,} bytes, {info.bytes_a_text:,.1f} per text, of which "
        f"{info.code_bytes_a_text:,.1f} are codes"
    )
    print(f"feature spec {FeatureSpec.from_json(info.spec)}")
    if info.outdated_rows:
        print(f"{info.outdated_rows:,} rows beside those are outdated: compact takes them out")
    if info.words:
        print("words of the texts are stored, for heads of the kind token_label")
    for name, kind in info.columns.items():
        print(f"column {name}: {kind}")


def _verify(options: argparse.Namespace) -> None:
    _verify_parts(options)
    if options.answers:
        _verify_answers(options)


def _verify_answers(options: argparse.Namespace) -> None:
    store = FeatureStore(options.store)
    faults = checked = 0
    for output in options.answers:
        folders = len(answer_folders(Folder(output)))
        steps = folders * len(store.parts)
        with progress_bar(steps, sys.stderr.isatty(), "verify answers", "part") as bar:
            wrong = verify_answers(store, output, None, partial(_count, bar))
        for sentence in wrong:
            print(sentence, file=sys.stderr)
        faults, checked = faults + len(wrong), checked + folders
    if faults:
        raise StoreError(
            f"{', '.join(options.answers)}: {faults} faults in the answers of {options.store}, see "
            "above."
        )
    print(f"answers of {checked} heads are this store's, one per text, every byte")


def _count(bar: Any, name: str) -> None:
    bar.update(1)


def _verify_parts(options: argparse.Namespace) -> None:
    parts = len(Folder(options.store).names(SUFFIX))
    with progress_bar(parts, sys.stderr.isatty(), "verify", "part") as bar:
        wrong = verify(options.store, is_checked=lambda name: bar.update(1))
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    if wrong:
        raise StoreError(f"{options.store}: {len(wrong)} of its parts are not sound, see above.")
    print(f"{parts} parts are sound, every byte")


def _compact(options: argparse.Namespace) -> None:
    check_above_zero("--part-mb", options.part_mb)
    store = FeatureStore(options.store)
    before = len(store.parts)
    compact(store, int(options.part_mb * 1e6))
    print(f"{before} parts before, {len(store.parts)} now")


def _delete(options: argparse.Namespace) -> None:
    ids = read_ids(options.ids, options.id_column, options.quotes)
    if options.report is not None and options.report.exists() and not options.force:
        raise InputError(
            f"--report {options.report}: is there already, expected a new file: it says what an "
            "earlier run deleted. Name another, or say --force."
        )
    deleted = delete(FeatureStore(options.store), ids, options.answers)
    report = {"finished": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    report |= deleted.to_json()
    if options.report is None:
        print_json(report)
    else:
        shown = json.dumps(report, ensure_ascii=False, indent=2) + "\n"
        write_whole(options.report, shown.encode("utf-8", "backslashreplace"))
        answers = sum(one.rows for one in deleted.answers)
        print(
            f"deleted {deleted.rows:,} texts from {len(deleted.parts)} parts and {answers:,} "
            f"answers of {len(deleted.answers)} tasks; {len(deleted.absent):,} ids were not there"
        )
    if not options.answers:
        say("no answers were looked at: if there are any of this store, name them with --answers")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bitheads store", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    info = commands.add_parser("info", help="rows, tokens, bytes per text, feature spec, parts")
    info.add_argument("--json", action="store_true", help="one JSON object")
    check = commands.add_parser("verify", help="read every byte of every part and check it")
    check.add_argument(
        "--answers",
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR",
        help="outputs of `bitheads backfill`, too: whether their answers are this store's, one per "
        "text that a head is for",
    )
    merge = commands.add_parser("compact", help="merge small parts; safe to kill at any moment")
    merge.add_argument(
        "--part-mb",
        type=float,
        default=PART_BYTES / 1e6,
        help="megabytes of a part, at most; raise it for fewer files (default: %(default).0f)",
    )
    erase = commands.add_parser(
        "delete",
        help="delete texts by id, codes and answers; safe to kill at any moment, and run again",
    )
    add = erase.add_argument
    add("--store", required=True, metavar="STORE", help="a folder, or a URI")
    add(
        "--ids",
        type=Path,
        required=True,
        metavar="FILE",
        help="the ids, one per line, or in a table (TSV, CSV, JSON lines, Parquet) by its suffix",
    )
    add("--id-column", help="column of the ids in a table (default: id)")
    add("--quotes", choices=QUOTES, help=QUOTES_HELP)
    add(
        "--answers",
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR",
        help="outputs of `bitheads backfill` of this store: all tasks in them lose their answers "
        "of these texts, too",
    )
    add(
        "--report",
        type=Path,
        metavar="FILE",
        help="write what was deleted there, as JSON (default: print it)",
    )
    add("--force", action="store_true", help="write over an earlier report")
    for command in (info, check, merge):
        command.add_argument("store", metavar="STORE", help="a folder, or a URI")
    return parser


if __name__ == "__main__":
    sys.exit(main())
