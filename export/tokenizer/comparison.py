"""The graph's token ids beside the tokenizer's own, by what is odd about the texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer

from bitheads.export.texts import read_texts
from bitheads.export.tokenizer.graph import GRAPH, run_graph, write_graph
from bitheads.export.tokenizer.odd_texts import tokenizer_texts

SENTENCES = "sentences"
SAME = "same"
_SHOWN_IDS, _SHOWN_LETTERS = 8, 60


@dataclass(frozen=True)
class Kind:
    """Texts of one kind.

    Attributes:
        texts: how many there are. same: of how many the ids are the same.
        example: the first that differs, None if none does. got, expected: its ids.
    """

    name: str
    texts: int
    same: int
    example: str | None = None
    got: tuple[int, ...] = ()
    expected: tuple[int, ...] = ()

    def __str__(self) -> str:
        """A row of the table in an error; ids from the one before the first that differs."""
        pairs = zip(self.got, self.expected, strict=False)
        equal = next((i for i, (a, b) in enumerate(pairs) if a != b), len(self.got))
        begin = max(0, min(equal, len(self.expected)) - 1)
        got, expected = (ids[begin:][:_SHOWN_IDS] for ids in (self.got, self.expected))
        example = (self.example or "")[:_SHOWN_LETTERS]
        return (
            f"{self.name}: {self.texts - self.same} of {self.texts}, such as {example!r}, from id "
            f"{begin} on {list(got)}, expected {list(expected)}"
        )


@dataclass(frozen=True)
class Comparison:
    """Of all kinds of texts."""

    kinds: tuple[Kind, ...]

    @property
    def texts(self) -> int:
        return sum(kind.texts for kind in self.kinds)

    @property
    def same(self) -> int:
        return sum(kind.same for kind in self.kinds)

    @property
    def differing(self) -> list[Kind]:
        return [kind for kind in self.kinds if kind.same < kind.texts]

    @property
    def verdict(self) -> str:
        """SAME, or of how many texts of which kinds the ids differ."""
        found = [f"{kind.texts - kind.same} of {kind.texts} {kind.name}" for kind in self.differing]
        return ", ".join(found) or SAME

    def to_json(self) -> dict[str, Any]:
        report: dict[str, Any] = {"texts": self.texts, "same": self.same}
        if self.differing:
            report["differing"] = {
                kind.name: {
                    "texts": kind.texts,
                    "same": kind.same,
                    "example": kind.example,
                    "got": list(kind.got),
                    "expected": list(kind.expected),
                }
                for kind in self.differing
            }
        return report


def examine(tokenizer: Path) -> Comparison:
    """How a graph of the tokenizer compares, on the shipped sentences and texts that are odd.

    Args:
        tokenizer: a tokenizer.json.

    Raises ExportError if there is no graph of it.
    """
    own = load(tokenizer)
    with TemporaryDirectory() as folder:
        write_graph(tokenizer, Path(folder))
        return compare(own, Path(folder) / GRAPH, read_texts(None))


def load(tokenizer: Path) -> Tokenizer:
    """The tokenizer itself, which cuts and pads nothing."""
    own = Tokenizer.from_file(str(tokenizer))
    own.no_padding()
    own.no_truncation()
    return own


def compare(own: Tokenizer, graph: Path, sentences: Sequence[str], prefix: str = "") -> Comparison:
    """Ids of the sentences, and of texts that are hard for tokenizers, without special tokens.

    Args:
        prefix: what stands before each of them.
    """
    texts: Mapping[str, Sequence[str]] = {SENTENCES: sentences, **tokenizer_texts(own)}
    every = [prefix + text for some in texts.values() for text in some]
    got = iter(run_graph(graph, every))
    encodings = iter(own.encode_batch_fast(every, add_special_tokens=False))
    return Comparison(
        tuple(
            _kind(
                name,
                [(text, next(got).tolist(), next(encodings).ids) for text in some],
            )
            for name, some in texts.items()
        )
    )


def _kind(name: str, compared: list[tuple[str, list[int], list[int]]]) -> Kind:
    differing = [(text, got, expected) for text, got, expected in compared if got != expected]
    same = len(compared) - len(differing)
    if not differing:
        return Kind(name, len(compared), same)
    text, got, expected = differing[0]
    return Kind(name, len(compared), same, text, tuple(got), tuple(expected))
