"""`python -m engine.encode`: texts of a file into a feature store, by ids, to be gone on with."""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.command_line import exit_code
from engine.engine import LONG_TEXTS, Engine
from engine.errors import InputError
from engine.interrupts import interrupts_held_back
from engine.job_options import add_progress_option, add_runner_options, check_above_zero
from engine.progress import progress_bar
from engine.store import FeatureStore, StoreWriter
from engine.store.ids import IdIndex
from engine.store.part_writer import PART_BYTES
from engine.store.writer import EXISTING, PART_SECONDS
from engine.tables import QUOTES, QUOTES_HELP
from engine.text_files import FORMATS, TextFile
from engine.types import Stats, Text

CHUNK_TEXTS = 1024
LOOK_UP_TEXTS, LOOK_UP_CHARACTERS = 4096, 8 << 20
BLOCK_TEXTS = 8192
EPILOG = """\
examples:
  python -m engine.encode --bundle B --input reviews.txt --store features
  python -m engine.encode --bundle B --input reviews.parquet --text-column body --id-column key \\
    --store s3://bucket/features
"""


@dataclass(frozen=True)
class Encoded:
    """What an encoding did.

    Attributes:
        stored: rows that were added or replaced.
        skipped: texts whose ids were stored before.
        stats: what the encoder did.
    """

    stored: int
    skipped: int
    stats: Stats


def encode_texts(
    engine: Engine,
    rows: Iterable[tuple[str, Text]],
    writer: StoreWriter,
    existing: str = "skip",
    chunk_texts: int = CHUNK_TEXTS,
    long_texts: str = "cut",
    max_batch_tokens: int | None = None,
    bar: Any = None,
) -> Encoded:
    """Encodes texts chunk by chunk and appends them.

    Args:
        rows: (id, text).
        writer: of a store of the engine's spec.
        existing: as the writer's; with "skip" such texts are not encoded either.
        bar: its `update` is called with a number of texts.

    Raises InputError for an id that comes twice, and what `Engine.encode_stream` and
    `StoreWriter.append` raise.
    """
    ids: deque[str] = deque()
    skipped = 0

    def texts() -> Iterator[Text]:
        nonlocal skipped
        seen = IdIndex()
        for chunk in _look_ups(rows):
            names = [name for name, _ in chunk]
            refuse_twice(names, seen)
            stored = before.contains(names) if existing == "skip" else [False] * len(chunk)
            for (name, text), is_stored in zip(chunk, stored, strict=True):
                if not is_stored:
                    ids.append(name)
                    yield text
            skipped += (count := sum(stored))
            if bar is not None:
                bar.update(count)

    before = writer.stored
    stored, stats = 0, Stats()
    for features in engine.encode_stream(
        texts(), chunk_texts, max_batch_tokens, long_texts=long_texts
    ):
        names = [ids.popleft() for _ in range(len(features))]
        with interrupts_held_back():
            stored += writer.append(names, features)
        stats += features.stats
        if bar is not None:
            bar.update(len(features))
    return Encoded(stored, skipped, stats)


def _look_ups(rows: Iterable[tuple[str, Text]]) -> Iterator[list[tuple[str, Text]]]:
    """The rows in lists, of so many texts and, for they are in memory, characters."""
    chunk: list[tuple[str, Text]] = []
    characters = 0
    for name, text in rows:
        chunk.append((name, text))
        characters += len(text) if isinstance(text, str) else sum(map(len, text))
        if len(chunk) >= LOOK_UP_TEXTS or characters >= LOOK_UP_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def refuse_twice(names: list[str], seen: IdIndex) -> None:
    """Adds the names to those seen. Raises InputError for one that was seen or comes twice."""
    again = seen.contains(names)
    first: set[str] = set()
    for name, is_seen in zip(names, again, strict=True):
        if is_seen or name in first:
            raise InputError(
                f"id {name!r} comes twice in the input, expected each once. Mend the input and run "
                "the same command again: it goes on."
            )
        first.add(name)
    seen.add(names)


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
    texts = TextFile(
        options.input,
        options.format,
        options.text_column,
        options.pair_column,
        options.id_column,
        options.quotes,
    )
    total = texts.count()
    started_s = time.monotonic()
    if options.runner == "ray":
        from engine.ray_jobs import encode_on_ray

        with progress_bar(total, options.progress) as bar:
            stored, skipped, rows = encode_on_ray(options, texts, bar)
        seconds = time.monotonic() - started_s
        print(
            f"stored {stored:,} texts in {seconds:,.1f} s; {skipped:,} were stored before; "
            f"{rows:,} in all{_note(texts, skipped)}"
        )
        return
    with Engine.load(options.bundle, options.backend, options.threads, options.precision) as engine:
        store = FeatureStore(options.store, engine.spec)
        with (
            progress_bar(total, options.progress) as bar,
            StoreWriter(
                store, options.existing, int(options.part_mb * 1e6), options.part_seconds
            ) as writer,
        ):
            done = encode_texts(
                engine,
                texts.rows(),
                writer,
                options.existing,
                options.chunk_texts,
                options.long_texts,
                options.max_batch_tokens,
                bar,
            )
    seconds = time.monotonic() - started_s
    cut = f", {done.stats.num_truncated:,} cut" if done.stats.num_truncated else ""
    print(
        f"stored {done.stored:,} texts, {done.stats.num_tokens:,} tokens{cut} in {seconds:,.1f} s; "
        f"{done.skipped:,} were stored before; {len(store):,} in all{_note(texts, done.skipped)}"
    )


def _note(texts: TextFile, skipped: int) -> str:
    """What to say of texts that may be others than those stored under their rows' numbers."""
    if not skipped or texts.columns[2] is not None:
        return ""
    return (
        "\nnote: the input has no ids, so a text was stored before if a row of its number was. If "
        "that row was of another input, say --id-column, or encode into another store."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m engine.encode",
        description="Encodes texts into a feature store. Run again, it goes on where it ended.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--bundle", type=Path, required=True, metavar="DIR", help="made by export.build")
    add("--input", type=Path, required=True, metavar="FILE", help="the texts")
    add("--store", required=True, metavar="DIR", help="a folder or a URI; made if it is not there")
    add("--format", choices=FORMATS, help="of the input (default: what its suffix says)")
    add("--text-column", help="(default: text, or text_a and text_b for pairs)")
    add("--pair-column", help="of the second texts of pairs")
    add("--quotes", choices=QUOTES, help=QUOTES_HELP)
    add(
        "--id-column",
        help="texts or whole numbers (default: id, or where there is none the number of the row, "
        "which fits no input whose rows move, and one input a store)",
    )
    add(
        "--existing",
        choices=EXISTING,
        default="skip",
        help="texts whose id is stored: skip them, which is how a run goes on; replace them, after "
        "texts have changed; or refuse them (default: %(default)s)",
    )
    add("--backend", default="auto", help="see engine.predict (default: %(default)s)")
    add("--precision", default="auto", help="see engine.predict (default: %(default)s)")
    add("--threads", type=int, help="of the encoder (default: all cores; with --runner ray 1)")
    add("--max-batch-tokens", type=int, help="bound on an encoder call's tokens")
    add("--long-texts", choices=LONG_TEXTS, default="cut", help="(default: %(default)s)")
    add(
        "--chunk-texts",
        type=int,
        default=CHUNK_TEXTS,
        help="encoded together; raise it on a GPU, lower it if a chunk takes minutes, which a "
        "killed run loses (default: %(default)s)",
    )
    add(
        "--part-mb",
        type=float,
        default=PART_BYTES / 1e6,
        help="codes of a part at most (default: %(default).0f)",
    )
    add(
        "--part-seconds",
        type=float,
        default=PART_SECONDS,
        help="a part is on disk for good at the latest this long after its first texts; lower it "
        "to lose less when killed, and merge with `python -m engine.store compact` (default: "
        "%(default).0f)",
    )
    add_runner_options(parser)
    add(
        "--block-texts",
        type=int,
        default=BLOCK_TEXTS,
        help="with --runner ray: of a part, which is what a lost worker's place takes again "
        "(default: %(default)s)",
    )
    add_progress_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
