"""A folder of tasks made of the shipped texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitheads.training.heads import linear_model
from bitheads.training.heads.background import default_background

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture
def few_penalties(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of the time of a fit without dev texts is the linear model's, once for each of them."""
    monkeypatch.setattr(linear_model, "PENALTIES", linear_model.PENALTIES[::3])


@pytest.fixture
def few_background(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every tenth text of the project's: encoding all of them takes most of the time of a head."""
    texts = default_background().read_text(encoding="utf-8").splitlines()
    folder = tmp_path / "few"
    folder.mkdir()
    (folder / "background.txt").write_text("\n".join(texts[::10]), encoding="utf-8")
    place = "bitheads.training.heads.train_head.default_background"
    monkeypatch.setattr(place, lambda: folder / "background.txt")


@pytest.fixture(scope="session")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`topics` (DOC, 4 classes), `sport` (DOC, 2 classes) and `paraphrase` (PP); not to be written
    to."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "index.tsv").write_text(
        "name\trows\ttype\ntopics\t200\tDOC\nsport\t100\tDOC\nparaphrase\t40\tPP\n"
    )
    header, *topics = (DATA / "topics.tsv").read_text(encoding="utf-8").splitlines()
    pairs_header, *pairs = (DATA / "paraphrase.tsv").read_text(encoding="utf-8").splitlines()
    sport = [
        row if row.startswith("sport\t") else f"other\t{row.split(chr(9))[1]}" for row in topics
    ]
    write_task(folder / "topics", header, topics[:200], topics[200:])
    write_task(folder / "sport", header, sport[:100], sport[200:])
    write_task(folder / "paraphrase", pairs_header, pairs[:40], pairs[40:])
    return folder


def write_task(folder: Path, header: str, train: list[str], dev: list[str]) -> None:
    folder.mkdir()
    for name, rows in (("train", train), ("dev", dev)):
        (folder / f"{name}.tsv").write_text("\n".join([header, *rows]), encoding="utf-8")
