"""Counts a task's answers over a file of any size: texts are read as they are needed."""

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bitheads import Engine


def lines(path: Path) -> Iterator[str]:
    """The file's texts, one per line; it is never in memory as a whole."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield line.rstrip("\n")


def main(bundle: str = "bundles/all-MiniLM-L6-v2", path: str | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder, Engine.load(bundle) as engine:
        if path is None:
            path = f"{folder}/texts.txt"
            some = ["What a lovely film.\n", "The plot makes no sense.\n", "It rained.\n"]
            Path(path).write_text("".join(some * 1000), encoding="utf-8")
        counts: Counter[str | None] = Counter()
        for features in engine.encode_stream(lines(Path(path)), chunk_texts=1024):
            counts.update(engine.predict_features(features, ["sentiment"])["sentiment"].top)
        print(f"{sum(counts.values())} texts: {dict(counts)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
