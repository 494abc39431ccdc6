"""`bitheads encode`: texts of files into a feature store."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from bitheads.engine.commands.command_line import exit_code
from bitheads.engine.commands.job_options import (
    add_progress_option,
    add_runner_options,
    check_above_zero,
)
from bitheads.engine.engine import Engine
from bitheads.engine.errors import InputError
from bitheads.engine.features.embedding import PRECISIONS
from bitheads.engine.jobs.encode import CHUNK_TEXTS, Found, encode_texts
from bitheads.engine.progress import progress_bar
from bitheads.engine.store import EmbeddingColumn, FeatureStore, StoreWriter
from bitheads.engine.store.part_writer import PART_BYTES
from bitheads.engine.store.user_columns import resolve
from bitheads.engine.store.writer import EXISTING, PART_SECONDS
from bitheads.engine.text_batches import LONG_TEXTS
from bitheads.engine.texts.bad_rows import BadRows, bad_rows_file, refuse_an_input
from bitheads.engine.texts.tables import QUOTES, QUOTES_HELP
from bitheads.engine.texts.text_files import FORMATS
from bitheads.engine.texts.text_inputs import TextInput, open_input

BLOCK_TEXTS = 8192
"""Texts per part, where workers of a cluster encode them."""

EPILOG = """\
examples:
  bitheads encode --bundle B --input reviews.txt --store features
  bitheads encode --bundle B --input reviews.parquet --text-column body --id-column key \\
    --store s3://bucket/features
  bitheads encode --bundle B --input s3://bucket/reviews/ --id-column key --store features
  bitheads encode --bundle B --input 'days/2024-*.jsonl' extra.jsonl --store features
  bitheads encode --bundle B --input reviews/ --columns stars day --store features
"""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    return exit_code(
        lambda: _run(options), "interrupted: what was encoded is stored; run it again to go on"
    )


def _run(options: argparse.Namespace) -> None:
    check_above_zero("--part-mb", options.part_mb)
    check_above_zero("--part-seconds", options.part_seconds)
    check_above_zero("--block-texts", options.block_texts)
    check_above_zero("--threads", options.threads)
    check_above_zero("--workers", options.workers)
    if (options.on_bad_row == "skip") != (options.bad_rows is not None):
        raise InputError(
            "--on-bad-row skip and --bad-rows: got one of them, expected both: rows that are "
            "passed over are written to a file. Say the other, too, or leave both out."
        )
    if options.embeddings is None and (options.embedding_dim is not None or options.normalize):
        raise InputError(
            "--embedding-dim and --normalize are of --embeddings: say it, too, or leave them out."
        )
    texts = open_input(
        options.input,
        options.format,
        options.text_column,
        options.pair_column,
        options.id_column,
        options.quotes,
        options.on_bad_row == "skip",
        options.columns,
    )
    if options.bad_rows is not None:
        refuse_an_input(options.bad_rows, texts)
    with bad_rows_file(options.bad_rows) as bad:
        _encode(options, texts, bad)
    if bad.count:
        print(f"passed over {bad.count:,} rows that are no texts: see {options.bad_rows}")


def _encode(options: argparse.Namespace, texts: TextInput, bad: BadRows) -> None:
    existing = options.existing or ("skip" if texts.columns[2] is None else "update")
    # To know it, lines and tables are read to their end.
    total = texts.count() if options.progress else None
    started_s = time.monotonic()
    if options.runner == "ray":
        from bitheads.engine.jobs.ray_jobs import EncodeJob, Workers, encode_on_ray

        job = EncodeJob(
            options.bundle,
            options.store,
            options.backend,
            options.precision,
            existing,
            options.block_texts,
            options.chunk_texts,
            options.max_batch_tokens,
            options.long_texts,
            options.spans,
            options.embeddings,
            options.embedding_dim,
            options.normalize,
            options.min_sign_agreement,
        )
        workers = Workers(options.workers, options.threads or 1)
        with progress_bar(total, options.progress) as bar:
            stored, found, rows = encode_on_ray(job, texts, workers, bar, bad.beside(bar))
        seconds = time.monotonic() - started_s
        print(
            f"stored {stored:,} texts{_kinds(found, existing)} in {seconds:,.1f} s; "
            f"{_left(found, existing)}; {rows:,} in all{_note(options, found, existing)}"
        )
        return
    with Engine.load(
        options.bundle,
        options.backend,
        options.threads,
        options.precision,
        min_sign_agreement=options.min_sign_agreement,
    ) as engine:
        store = FeatureStore(options.store, engine.spec)
        store.check_words(options.spans)
        columns = resolve(texts.fields, store.schema, str(store.folder))
        column = None
        if options.embeddings is not None:
            column = EmbeddingColumn(
                engine.embedder, options.embeddings, options.embedding_dim, options.normalize
            )
        with (
            progress_bar(total, options.progress) as bar,
            StoreWriter(
                store,
                existing,
                int(options.part_mb * 1e6),
                options.part_seconds,
                embedding=column,
                numbered_files=texts.numbered_files,
            ) as writer,
        ):
            done = encode_texts(
                engine,
                texts.full_rows(on_bad=bad.beside(bar)),
                writer,
                existing,
                options.chunk_texts,
                options.long_texts,
                options.max_batch_tokens,
                bar,
                options.spans,
                column is not None,
                columns,
            )
    seconds = time.monotonic() - started_s
    cut = f", {done.stats.num_truncated:,} cut" if done.stats.num_truncated else ""
    print(
        f"stored {done.stored:,} texts{_kinds(done.found, existing)}, "
        f"{done.stats.num_tokens:,} tokens{cut} in {seconds:,.1f} s; "
        f"{_left(done.found, existing)}; {len(store):,} in all"
        f"{_note(options, done.found, existing)}"
    )


def _kinds(found: Found, existing: str) -> str:
    """Of those that were stored."""
    if existing == "replace":
        return f" ({found.new:,} new, {found.known:,} in the place of others)"
    return f" ({found.new:,} new, {found.changed if existing == 'update' else 0:,} changed)"


def _left(found: Found, existing: str) -> str:
    """Of those that were not."""
    if existing == "replace":
        return "0 unchanged"
    changed = f", {found.changed:,} changed and left as they were" * (existing != "update")
    unknown = f", {found.unknown:,} were stored before"
    return (
        f"{found.unchanged:,} unchanged"
        f"{changed if found.changed else ''}{unknown if found.unknown else ''}"
    )


def _note(options: argparse.Namespace, found: Found, existing: str) -> str:
    """What to say where a text may not be the one that is stored under its id, or its columns."""
    notes = ""
    left = found.unchanged + found.unknown + (found.changed if existing == "skip" else 0)
    if options.columns and left and existing != "replace":
        notes += (
            "\nnote: the columns of texts that are stored already are left as they are: say "
            "--existing replace if they have changed."
        )
    if found.unknown and existing != "replace":
        notes += (
            f"\nnote: {options.store} keeps no hash of those texts, so whether they have changed "
            "cannot be found out: say --existing replace if they have."
        )
    if found.changed and existing == "skip":
        notes += (
            "\nnote: other texts are stored under the ids of some. If the input was edited, say "
            "--existing update; if it is another one whose rows are counted from 0, too, say "
            "--id-column, or encode into another store."
        )
    return notes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bitheads encode",
        description="Encodes texts into a feature store. Run it again and it goes on where it "
        "ended.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--bundle", type=Path, required=True, metavar="DIR", help="made by `bitheads build`")
    add(
        "--input",
        nargs="+",
        action="extend",
        required=True,
        metavar="PATH",
        help="the texts: files, folders of files, globs in quotes, or URIs of them, of one format; "
        "lines and tables may be in gzip or zstd (.jsonl.gz); a folder may be what save_to_disk of "
        "Hugging Face's datasets saved",
    )
    add("--store", required=True, metavar="DIR", help="a folder or a URI; made if it is not there")
    add("--format", choices=FORMATS, help="format of the input (default: what suffixes say)")
    add("--text-column", help="column of the texts (default: text, or text_a and text_b for pairs)")
    add("--pair-column", help="column of the second texts of pairs")
    add("--quotes", choices=QUOTES, help=QUOTES_HELP)
    add(
        "--on-bad-row",
        choices=("stop", "skip"),
        default="stop",
        help="a row without a text or an id, or that cannot be read: end there, with what was "
        "encoded stored, or pass over it (default: %(default)s)",
    )
    add(
        "--bad-rows",
        type=Path,
        metavar="FILE",
        help="with --on-bad-row skip: where to write which rows those are, and why, as JSON lines",
    )
    add(
        "--id-column",
        help="texts or whole numbers (default: id, or where there is none the number of the row, "
        "which fits no input whose rows move, and one input a store)",
    )
    add(
        "--columns",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="columns of the input to store beside the codes, with their types, or Hive's folders: "
        "day of day=2024-01-01/; all texts of a store have the same",
    )
    add(
        "--existing",
        choices=EXISTING,
        help="texts whose id is stored: skip them; update those that have changed since, as their "
        "hashes say, and skip the others; replace all of them; or refuse them (default: update, "
        "and skip where the number of the row is the id)",
    )
    add("--backend", default="auto", help="see `bitheads predict` (default: %(default)s)")
    add("--precision", default="auto", help="see `bitheads predict` (default: %(default)s)")
    add("--min-sign-agreement", type=float, metavar="SHARE", help="see `bitheads predict`")
    add(
        "--threads",
        type=int,
        help="processor threads of the encoder (default: all cores; with --runner ray 1)",
    )
    add("--max-batch-tokens", type=int, help="bound on an encoder call's tokens")
    add("--long-texts", choices=LONG_TEXTS, default="cut", help="(default: %(default)s)")
    add(
        "--spans",
        action="store_true",
        help="store which tokens each word of a text has, too, without which no spans can be found "
        "in stored texts: about one byte per token; all texts of a store have it, or none",
    )
    add(
        "--embeddings",
        choices=PRECISIONS,
        help="store the texts' embeddings, too, in a column `embedding` of such numbers, of a "
        "bundle that gives some; all texts of a store have them, or none",
    )
    add("--embedding-dim", type=int, metavar="N", help="the first N numbers of each alone")
    add("--normalize", action="store_true", help="make each embedding of length 1")
    add(
        "--chunk-texts",
        type=int,
        default=CHUNK_TEXTS,
        help="texts that are encoded together; raise it on a GPU, lower it if a chunk takes "
        "minutes, which a killed run loses (default: %(default)s)",
    )
    add(
        "--part-mb",
        type=float,
        default=PART_BYTES / 1e6,
        help="megabytes of codes per part, at most (default: %(default).0f)",
    )
    add(
        "--part-seconds",
        type=float,
        default=PART_SECONDS,
        help="seconds after its first texts at which a part is on disk for good, at the latest; "
        "lower it to lose less when killed, and merge with `bitheads store compact` (default: "
        "%(default).0f)",
    )
    add_runner_options(parser)
    add(
        "--block-texts",
        type=int,
        default=BLOCK_TEXTS,
        help="with --runner ray: texts per part, which another worker encodes again if one is lost "
        "(default: %(default)s)",
    )
    add_progress_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
