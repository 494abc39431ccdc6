"""`bitheads table3` from a configuration to the table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from table_files import cells_of, results_of, rows_of

from bitheads.training.config_file import read_config
from bitheads.training.table3 import __main__ as table3
from bitheads.training.table3 import run
from bitheads.training.table3.__main__ import CONFIG, main
from bitheads.training.table3.cells.new_heads import needed_layers
from bitheads.training.table3.config import FEATURE_METHODS, Table3Config

Arguments = Callable[..., list[str]]

EVERYTHING: dict[str, Any] = {
    "frozen": ["last/cls/float", "mean/attention/sign", "learned/attention/float"],
    "leave_one_task_out": ["mean/attention/sign"],
    "leave_one_task_out_signs": ["mean-2/attention/sign"],
    "leave_one_type_out": ["mean-2/attention/sign", "last/mean/uint8"],
    "all_tasks": True,
    "all_tasks_heads": ["mean-2/attention/sign"],
    "single_task": True,
    "student": True,
    "seeds": [0, 1],
    "matthews": ["sport"],
    "f1": {"paraphrase": "yes"},
    "wsd": {"task": "senses"},
}


@pytest.mark.long
def test_all_methods(
    arguments: Arguments,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "out"
    assert main(arguments(output, "--json", **EVERYTHING)) == 0
    printed = capsys.readouterr()
    assert "nothing left" in printed.err
    table = json.loads(printed.out)
    sections = [row["section"] for row in table["rows"]]
    assert list(dict.fromkeys(sections)) == [
        "single task",
        "frozen",
        "leave one task out",
        "leave one task out signs",
        "leave one type out",
        "all tasks",
        "all tasks, new heads",
    ]
    for row in table["rows"]:
        assert list(row["accuracy"]) == ["topics", "sport", "paraphrase"]
        seeds = 1 if row["section"] in ("single task", "all tasks") else 2
        assert {len(values) for values in row["accuracy"].values()} == {seeds}
        assert len(row["average"]) == seeds
        assert list(row["matthews"]) == ["sport"]
    chosen = table["chosen_layers"]
    assert set(chosen) == {"frozen", "leave_one_task_out"}
    rows = rows_of(output)
    assert ("frozen", f"mean-{chosen['frozen']}/attention/sign") in rows
    assert (
        rows["single task", "fine-tuned end to end"]["gflops"]
        > (rows["all tasks", "used as is"]["gflops"])
    )
    assert set(table["word_senses"]) == {"frozen", "all_tasks"}
    assert table["word_senses"]["frozen"]["most_frequent"]["test"] == 0.5
    names = {path.name for path in (output / "encoders").iterdir()}
    assert {"all", "without-sport", "signs-without-sport", "without-type-DOC", "only-sport"} < names
    # A type's encoder is shared by its tasks, and was trained on none of them.
    record = json.loads((output / "encoders" / "without-type-DOC" / "multitask.json").read_text())
    assert list(record["tasks"]) == ["paraphrase"]
    for left_out in ("topics", "sport", "paraphrase"):
        for kind in ("without", "signs-without"):
            path = output / "encoders" / f"{kind}-{left_out}" / "multitask.json"
            trained_on = {"topics", "sport", "paraphrase"} - {left_out}
            assert set(json.loads(path.read_text())["tasks"]) == trained_on
    signed = output / "encoders" / "signs-without-sport" / "multitask.json"
    assert json.loads(signed.read_text())["config"]["signs"] is True

    before = cells_of(output)
    monkeypatch.setattr(run, "train_cell", None)
    monkeypatch.setattr(run, "train_encoder", None)
    shutil.rmtree(output / "encoders")
    shutil.rmtree(output / "scratch")
    assert main(arguments(output, **EVERYTHING)) == 0
    assert cells_of(output) == before
    markdown = (output / "table.md").read_text(encoding="utf-8")
    assert "| method | topics | sport | paraphrase | average | GFLOPs |" in markdown
    assert "| encoder | layer | most frequent sense |" in markdown


def test_encoders_can_make_room(
    arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go once nothing reads them; two methods share the encoder without paraphrase."""
    settings = {
        "frozen": [],
        "all_tasks_heads": ["last/cls/float"],
        "leave_one_task_out": ["last/cls/float"],
        "leave_one_type_out": ["last/cls/float"],
        "keep_encoders": False,
    }
    trained = []

    def say(message: str) -> None:
        if ": training on " in message:
            trained.append(message.split(":")[0].removeprefix("encoder "))

    monkeypatch.setattr(table3, "say", say)
    assert main(arguments(tmp_path / "out", **settings)) == 0
    assert [path.name for path in (tmp_path / "out" / "encoders").iterdir()] == ["all"]
    others = {"without-topics", "without-sport", "without-paraphrase"}
    assert sorted(trained) == sorted({"all", *others, "without-type-DOC"})


def test_results_do_not_depend_on_what_else_there_is(
    frozen: Path, arguments: Arguments, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    assert main(arguments(output, tasks=["sport"], frozen=["last/cls/float"])) == 0
    some = results_of(output)
    assert some == {name: results_of(frozen)[name] for name in some}
    # More methods, tasks and seeds add to what is there.
    before = cells_of(output)
    assert main(arguments(output, seeds=[0, 1])) == 0
    after = cells_of(output)
    assert before.items() <= after.items()
    for name, result in results_of(frozen).items():
        assert results_of(output)[name] == result


@pytest.mark.long
def test_what_is_chosen_is_chosen_on_dev(arguments: Arguments, tmp_path: Path) -> None:
    """The test rows have other labels: what is best on them is worst on dev."""
    output = tmp_path / "out"
    settings = {"learning_rates": [1e-2, 1e-5], "head": {"epochs": 6}, "mean_layers": [1, 2, 4]}
    recipe = "mean/attention/float"
    assert main(arguments(output, frozen=[recipe, "last/mean/float"], **settings)) == 0
    for rate in settings["learning_rates"]:
        alone = tmp_path / f"{rate}"
        changed = {**settings, "learning_rates": [rate]}
        assert main(arguments(alone, frozen=[recipe, "last/mean/float"], **changed)) == 0
        for name, result in results_of(alone).items():
            assert result["dev"]["accuracy"] <= results_of(output)[name]["dev"]["accuracy"]
    # What so little training finds is chance: of results that are known, the best is chosen.
    on_dev = {1: 0.2, 2: 0.9, 4: 0.5}
    for count, accuracy in on_dev.items():
        for path in (output / "cells" / "frozen").rglob(f"mean-{count}.attention.float.*.json"):
            cell = json.loads(path.read_text(encoding="utf-8"))
            cell["result"]["dev"]["accuracy"] = accuracy
            cell["result"]["test"]["accuracy"] = 1 - accuracy
            path.write_text(json.dumps(cell), encoding="utf-8")
    assert main(arguments(output, frozen=[recipe, "last/mean/float"], **settings)) == 0
    table = json.loads((output / "table.json").read_text(encoding="utf-8"))
    averages = {
        row["name"]: row["dev_average"][0] for row in table["rows"] if row["name"][:4] == "mean"
    }
    assert averages == {
        f"mean-{count}/attention/float": pytest.approx(100 * accuracy)
        for count, accuracy in on_dev.items()
    }
    assert table["chosen_layers"]["frozen"] == 2


def test_layers_are_chosen_by_tasks_that_all_candidates_have(
    frozen: Path, arguments: Arguments, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(frozen, tmp_path / "out"))
    for path in (output / "cells" / "frozen").rglob("mean-3.attention.float.*.json"):
        if path.parent.name != "sport":
            path.unlink()
    assert main(arguments(output, "--report-only")) == 0
    accuracies = {}
    for count in (2, 3):
        path = output / "cells" / "frozen" / "sport" / f"mean-{count}.attention.float.seed-0.json"
        accuracies[count] = json.loads(path.read_text())["result"]["dev"]["accuracy"]
    table = json.loads((output / "table.json").read_text(encoding="utf-8"))
    assert accuracies[table["chosen_layers"]["frozen"]] == max(accuracies.values())


def test_report_only(
    frozen: Path, arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Path(shutil.copytree(frozen, tmp_path / "out"))
    next((output / "cells").rglob("*paraphrase/last.cls*.json")).unlink()
    before = cells_of(output)
    assert main(arguments(output, "--report-only", all_tasks=True)) == 0
    assert cells_of(output) == before
    assert "| last/cls/float |" in capsys.readouterr().out
    row = rows_of(output)["frozen", "last/cls/float"]
    assert list(row["accuracy"]) == ["topics", "sport"]
    assert row["average"] is None
    assert main(arguments(tmp_path / "none", "--report-only")) == 0


def test_all_tasks_are_those_of_the_folder_but_the_senses(
    arguments: Arguments, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    settings = {"frozen": ["last/cls/float"], "wsd": {"task": "senses"}}
    assert main(arguments(output, tasks=[], **settings)) == 0
    table = json.loads((output / "table.json").read_text(encoding="utf-8"))
    assert table["tasks"] == ["topics", "sport", "paraphrase"]


@pytest.mark.parametrize(
    ("name", "layers"), [("table3_minilm.toml", 6), ("table3_roberta_large.toml", 24)]
)
def test_the_shipped_configurations(name: str, layers: int) -> None:
    config = read_config(CONFIG.with_name(name), Table3Config)
    assert len(config.tasks) == 14
    for method in FEATURE_METHODS:
        recipes = [recipe.with_layers(layers) for recipe in config.recipes(method)]
        assert needed_layers(recipes, layers)[-1] == layers
