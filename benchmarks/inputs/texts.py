"""Real texts of mixed lengths, from short questions to reviews; the same each time."""

from __future__ import annotations

import random
from importlib.resources import files
from pathlib import Path

from bitheads.engine.errors import InputError
from bitheads.engine.texts.tables import read_table
from bitheads.engine.types import Text
from bitheads.export.texts import read_texts

MOST_SENTENCES = 12
"""Sentences that are joined into one text at most, where there are no reviews to draw from."""


def drawn(data: Path, count: int, split: str = "test") -> list[str]:
    """Texts drawn evenly from the test files of a data folder: of pairs, the first text.

    Args:
        split: which files, "test" or "train".

    Raises InputError if there are none.
    """
    found = sorted(Path(data).glob(f"*/{split}.[ct]sv"))
    if not found:
        raise InputError(f"--data {data}: no */{split}.tsv in it, nor */{split}.csv.")
    draw = random.Random(0)
    texts: list[str] = []
    for file in found:
        table = read_table(file)
        rows = [row.cells for row in table.rows]
        first = next((i for i, name in enumerate(table.header) if name in ("text", "text_a")), None)
        if first is None:
            raise InputError(
                f"{file} has the columns {list(table.header)}, expected one of them to be text or "
                "text_a."
            )
        texts += [row[first] for row in draw.sample(rows, min(count // len(found), len(rows)))]
    return texts


def demo_texts() -> list[Text]:
    """The demo's texts and pairs."""
    content = (files("bitheads.engine") / "data" / "demo.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in content.splitlines()[1:])
    return [(first, second) if second else first for first, second in rows]


def source_of(data: Path | None) -> str:
    """Where `mixed` has its texts from, as results say it."""
    return "shipped sentences, joined" if data is None else "drawn from test files"


def mixed(data: Path | None, count: int) -> list[str]:
    """`count` texts in random order, no two of them equal, for the engine reads what is equal once.

    Drawn from `data`, where there are fewer than that several of them joined, or made of the
    shipped sentences.
    """
    draw = random.Random(1)
    if data is None:
        pool, found = read_texts(None), {}
    else:
        # Folders with few texts leave some of their share to the others.
        pool = [*dict.fromkeys(drawn(data, 4 * count))]
        draw.shuffle(pool)
        found = dict.fromkeys(pool[:count])
    while len(found) < count:
        if data is None:
            chosen = draw.sample(pool, _sentences(draw))
        else:
            chosen = draw.choices(pool, k=draw.randint(2, MOST_SENTENCES))
        found[" ".join(chosen)] = None
    return [*found]


def _sentences(draw: random.Random) -> int:
    """Half of the texts are one sentence, few are many, as in most collections."""
    return min(MOST_SENTENCES, 1 + int(draw.expovariate(0.5)))
