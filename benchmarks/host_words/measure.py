"""Words in C++, which has no places of tokens, beside Python, which has the library's own."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer

from benchmarks import record
from benchmarks.contenders.host_words import TOKENIZER, add_graph, is_same, with_the_same_ids
from benchmarks.inputs.tokenizer_kinds import KINDS, corpus
from benchmarks.options import command
from bitheads.engine.commands.command_line import say
from bitheads.engine.errors import InputError
from bitheads.export.texts import read_texts
from bitheads.export.tokenizer.odd_texts import tokenizer_texts

PARAGRAPH_LINES = 7


def run(options: argparse.Namespace) -> None:
    """Raises InputError where the program is not built, or nothing published is there."""
    if not options.program.exists():
        raise InputError(f"--program {options.program}: no such file. Type: make host")
    result = {}
    with TemporaryDirectory() as name:
        for kind in list(KINDS)[: 1 if options.quick else None]:
            folder = Path(name) / kind.replace(" ", "-")
            KINDS[kind]().save_pretrained(folder)
            result[kind] = _compare(options.program, kind, folder)
        for file in _published(options.published):
            folder = Path(name) / "published" / file.parent.name
            folder.mkdir(parents=True)
            shutil.copy(file, folder)
            kind = f"{file.parent.name}, as published"
            result[kind] = _compare(options.program, kind, folder)
    record.keep("host_words", command("host_words", options), result, options.quick)


def _published(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    files = sorted(folder.glob(f"*/{TOKENIZER}"))
    if not files:
        raise InputError(f"--published {folder}: no */tokenizer.json in it.")
    return files


def real_texts() -> list[str]:
    """The shipped sentences and lines of Python's manual, each alone, and several in a text."""
    lines = [*read_texts(None), *corpus()[:3000:2]]
    starts = range(0, len(lines), PARAGRAPH_LINES)
    return [*lines, *("\n".join(lines[i : i + PARAGRAPH_LINES]) for i in starts)]


def _compare(program: Path, kind: str, folder: Path) -> dict[str, dict[str, int]]:
    say(kind)
    add_graph(folder)
    odd = tokenizer_texts(Tokenizer.from_file(str(folder / TOKENIZER)))
    texts = {"real": real_texts(), "odd": [text for some in odd.values() for text in some]}
    return {name: _count(program, folder, some) for name, some in texts.items()}


def _count(program: Path, folder: Path, texts: Sequence[str]) -> dict[str, int]:
    compared = with_the_same_ids(program, folder, texts)
    same = sum(is_same(found, expected) for _, found, expected in compared)
    return {"texts": len(texts), "same_ids": len(compared), "same_words": same}
