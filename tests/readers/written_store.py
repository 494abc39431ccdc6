"""A store and the answers to its texts, as the commands write them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tiny_encoders import corpus

from bitheads.engine.commands import backfill, encode

TEXTS = [*corpus()[:196], "", "😀 übermäßig", "a\u0000b", 'two\nlines, "quoted"']


@dataclass(frozen=True)
class Written:
    """What the commands wrote.

    Attributes:
        folder: with `features`, which has words and float32 embeddings, `answers` to it by heads of
            every kind, and a store for each other type of embedding.
        bundle: with those heads.
    """

    folder: Path
    bundle: Path

    def encode(self, store: str, texts: dict[str, str], *options: str) -> None:
        """Texts by id into a store, more than a part of them."""
        path = self.folder / "texts.jsonl"
        rows = [json.dumps({"id": name, "text": text}) for name, text in texts.items()]
        path.write_text("\n".join(rows), encoding="utf-8")
        fixed = ["--bundle", self.bundle, "--input", path, "--store", self.folder / store]
        assert encode.main([*map(str, fixed), "--backend", "onnxruntime", *options]) == 0

    def backfill(self, store: str, output: str, *options: str) -> None:
        """Answers to a store's texts."""
        fixed = ["--bundle", self.bundle, "--store", self.folder / store]
        output_options = ["--output", self.folder / output, "--probabilities"]
        assert backfill.main([*map(str, (*fixed, *output_options)), *options]) == 0
