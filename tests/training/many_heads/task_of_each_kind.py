"""A folder with a task of each kind, made of the shipped texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "data"

TASKS = {
    "topics": "single_label",
    "paraphrase": "single_label",
    "subjects": "multi_label",
    "lengths": "regression",
    "sizes": "ordinal",
    "names": "token_label",
}
"""Task -> kind."""


def make_tasks(folder: Path) -> Path:
    """TASKS, of several formats, with dev and test or without."""
    header, *topics = (DATA / "topics.tsv").read_text(encoding="utf-8").splitlines()
    rows = [tuple(row.split("\t")) for row in topics]
    _write_table(folder / "topics", header, topics[:120], topics[120:160], topics[160:240])
    header, *pairs = (DATA / "paraphrase.tsv").read_text(encoding="utf-8").splitlines()
    _write_table(folder / "paraphrase", header, pairs[:40], pairs[40:])
    _write_lines(
        folder / "subjects",
        [{"text": text, "labels": [topic] * (topic != "food")} for topic, text in rows],
        (100, 150),
    )
    _write_lines(
        folder / "lengths",
        [{"text": text, "score": float(len(text.split()))} for _, text in rows],
        (100,),
    )
    _write_lines(
        folder / "sizes",
        [{"text": text, "label": min(3, len(text) // 20)} for _, text in rows[:120]],
        (),
    )
    lines = (DATA / "names.jsonl").read_text(encoding="utf-8").splitlines()
    _write_lines(folder / "names", [json.loads(line) for line in lines], (60, 80))
    others = [f"Minute {i} of the meeting: {i % 7} were there, {i % 5} spoke." for i in range(120)]
    (folder / "background.txt").write_text("\n".join(others))
    (folder / "settings.toml").write_text('epochs = 2\n[tasks.sizes]\nkind = "ordinal"\n')
    return folder


def _write_table(folder: Path, header: str, *parts: list[str]) -> None:
    folder.mkdir()
    for name, rows in zip(("train", "dev", "test"), parts, strict=False):
        (folder / f"{name}.tsv").write_text("\n".join([header, *rows]), encoding="utf-8")


def _write_lines(folder: Path, rows: list[dict[str, Any]], ends: tuple[int, ...]) -> None:
    """Rows as train, test and dev, each up to one of the ends."""
    folder.mkdir()
    starts = [0, *ends, len(rows)]
    for i, name in enumerate(("train", "test", "dev")[: len(ends) + 1]):
        lines = [json.dumps(row) for row in rows[starts[i] : starts[i + 1]]]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
