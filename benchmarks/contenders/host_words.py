"""The words that the C++ host finds in texts, and their tokens, beside Python's: no times.

tests/host/find_words.cpp runs the host's tokenizer alone, on a tokenizer.json and its graph.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bitheads.engine.process.quiet_import import import_quietly
from bitheads.engine.texts.tokenize import TextTokenizer, Tokens
from bitheads.export.host_tokenizer import FOLDER, describe, write_description
from bitheads.export.tokenizer.graph import write_graph

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class FoundWords:
    """Of a text.

    Attributes:
        words: rows of bitheads.engine.features.words.Words.table.
        places: of each the first byte and that behind its last.
    """

    ids: list[int]
    words: list[list[int]]
    places: list[list[int]]


def add_graph(folder: Path) -> None:
    """Writes the graph of the tokenizer.json in a folder, as a bundle has it."""
    (folder / FOLDER).mkdir()
    write_graph(folder / TOKENIZER, folder / FOLDER)
    write_description(folder / FOLDER, describe(folder / TOKENIZER, folder / FOLDER))


def find_words_in_cpp(
    program: Path, folder: Path, texts: Sequence[str], max_length: int, prefix: str = ""
) -> list[FoundWords]:
    """Of each text, by find_words.cpp. Raises CalledProcessError."""
    library = str(import_quietly("openvino_tokenizers")._ext_path)
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    command = [str(program), str(folder), library, str(max_length), prefix]
    shown = subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, check=True)
    found = []
    for line in shown.stdout.splitlines():
        read = json.loads(line)
        words = read["words"]
        found.append(
            FoundWords(read["ids"], [row[:4] for row in words], [row[4:] for row in words])
        )
    return found


def with_the_same_ids(
    program: Path, folder: Path, texts: Sequence[str], max_length: int = 512, prefix: str = ""
) -> list[tuple[str, FoundWords, Tokens]]:
    """What both hosts find in those of the texts of which they have the same ids."""
    found = find_words_in_cpp(program, folder, texts, max_length, prefix)
    expected = TextTokenizer(folder / TOKENIZER, max_length, prefix=prefix)(texts, words=True)
    every = zip(texts, found, expected, strict=True)
    return [(text, got, own) for text, got, own in every if got.ids == own.ids.tolist()]


def is_same(found: FoundWords, expected: Tokens) -> bool:
    return expected.words is not None and found.words == expected.words.tolist()
