"""Tasks with test rows and words with senses, and a grid that takes a second per cell at most."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bitheads.training.table3.__main__ import main

SETTINGS: dict[str, Any] = {
    "tasks": ["topics", "sport", "paraphrase"],
    "max_train_rows": 60,
    "max_dev_rows": 20,
    "max_test_rows": 30,
    "frozen": ["last/cls/float", "mean/attention/float", "mean/attention/sign"],
    "mean_layers": [2, 3],
    "learning_rates": [1e-3],
    "head": {"epochs": 2},
    "multitask": {"steps": 3, "batch_size": 4, "evaluate_every": 3, "checkpoint_every": 2},
    "signed": {"steps": 2, "batch_size": 4, "layer_pooling": "mean"},
    "finetune": {"steps": 3, "batch_size": 4, "evaluate_every": 3, "checkpoint_every": 3},
    "distil": {"layers": 1, "steps": 3, "batch_size": 4},
}

Arguments = Callable[..., list[str]]


@pytest.fixture(scope="session")
def grid_folder(task_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tasks with test.tsv, and `senses`; not to be written to.

    Test rows have dev's texts under other labels, so what is best on one is worst on the other.
    """
    folder = Path(shutil.copytree(task_folder, tmp_path_factory.mktemp("grid") / "tasks"))
    for task in ("topics", "sport", "paraphrase"):
        header, *rows = (folder / task / "dev.tsv").read_text(encoding="utf-8").splitlines()
        labels = sorted({row.split("\t")[0] for row in rows})
        after = dict(zip(labels, [*labels[1:], labels[0]], strict=True))
        wrong = [
            "\t".join([after[label], *texts]) for label, *texts in (r.split("\t") for r in rows)
        ]
        text = "\n".join([header, *wrong])
        (folder / task / "test.tsv").write_text(text, encoding="utf-8")
    (folder / "senses").mkdir()
    rows = [
        f"{sense}\t{text}\t{text.index('bank')}\t{text.index('bank') + 4}\tbank\tNOUN"
        for sense, text in (
            ("river", "They sat down on the bank of the river."),
            ("money", "She paid the money into the bank."),
            ("river", "The boat lay at the bank over night."),
            ("money", "A bank gives loans to people."),
        )
    ]
    for part in ("train", "dev", "test"):
        text = "\n".join(["label\ttext\tstart\tend\tlemma\tpos", *rows])
        (folder / "senses" / f"{part}.tsv").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def arguments(
    tiny_encoder: Callable[[str], Path],
    grid_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Arguments:
    """(output, options, changed settings) -> arguments of the command."""

    def make(output: Path, *options: str, **changed: Any) -> list[str]:
        config = tmp_path_factory.mktemp("config") / "table3.toml"
        config.write_text(toml({**SETTINGS, **changed}), encoding="utf-8")
        required = ["--config", str(config), "--data", str(grid_folder), "--device", "cpu"]
        encoder = ["--encoder", str(tiny_encoder("bert"))]
        return [*required, *encoder, "--output", str(output), *options]

    return make


@pytest.fixture(scope="session")
def frozen(arguments: Arguments, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small grid that nothing disturbed; not to be written to."""
    output = tmp_path_factory.mktemp("frozen") / "table"
    assert main(arguments(output)) == 0
    return output


def toml(settings: dict[str, Any]) -> str:
    """A TOML file of the settings, plain values first, then tables."""
    plain = [f"{k} = {json.dumps(v)}" for k, v in settings.items() if not isinstance(v, dict)]
    tables = [f"[{k}]\n{toml(v)}" for k, v in settings.items() if isinstance(v, dict)]
    return "\n".join([*plain, *tables]) + "\n"
