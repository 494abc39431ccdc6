"""`python -m training.table3` from a configuration to the table, and all that may stop it."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training import table3, train_multitask
from training.config_file import read_config
from training.errors import CheckpointError
from training.grid import run
from training.grid.config import FEATURE_METHODS, Table3Config
from training.grid.heads import needed_layers
from training.table3 import CONFIG, main

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


@pytest.fixture(scope="module")
def frozen(arguments: Arguments, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small grid that nothing disturbed; not to be written to."""
    output = tmp_path_factory.mktemp("frozen") / "table"
    assert main(arguments(output)) == 0
    return output


def rows_of(output: Path) -> dict[tuple[str, str], dict[str, Any]]:
    table = json.loads((output / "table.json").read_text(encoding="utf-8"))
    return {(row["section"], row["name"]): row for row in table["rows"]}


def cells_of(output: Path) -> dict[str, bytes]:
    folder = output / "cells"
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.json")}


def results_of(output: Path) -> dict[str, Any]:
    """Without the seconds."""
    results = {name: json.loads(content)["result"] for name, content in cells_of(output).items()}
    for result in results.values():
        result.pop("seconds", None)
    return results


def stop_at(monkeypatch: pytest.MonkeyPatch, start: str) -> list[str]:
    """Ctrl-C once a line is said that starts so; all lines that are said."""
    lines: list[str] = []

    def say(message: str) -> None:
        lines.append(message)
        if message.startswith(start):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(table3, "say", say)
    return lines


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
    """Once nothing reads them; two methods share the encoder without paraphrase."""
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


def test_interrupted(
    frozen: Path, arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_at(patch, "frozen sport last")
        assert main(arguments(output)) == 130
    before = cells_of(output)
    assert 3 <= len(before) < len(cells_of(frozen))
    assert main(arguments(output)) == 0
    assert before.items() <= cells_of(output).items()
    assert results_of(output) == results_of(frozen)


def test_another_configuration(
    frozen: Path, arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Path(shutil.copytree(frozen, tmp_path / "out"))
    before = cells_of(output)
    assert main(arguments(output, head={"epochs": 1})) == 1
    error = capsys.readouterr().err
    assert "head.epochs (got 1, the file has 2)" in error
    assert "--force to compute such cells again" in error
    assert main(arguments(output, max_test_rows=10)) == 1
    assert "data.test.rows (got 10, the file has 30)" in capsys.readouterr().err
    assert cells_of(output) == before
    assert main(arguments(output, "--force", head={"epochs": 1})) == 0
    assert set(cells_of(output)) >= set(before)
    assert {results_of(output)[name]["epochs"] for name in before} == {1}
    assert main(arguments(output, head={"epochs": 1})) == 0


def test_another_configuration_of_encoders(
    arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    settings = {"frozen": [], "all_tasks": True}
    assert main(arguments(output, **settings)) == 0
    changed = {**settings, "multitask": {"steps": 2, "batch_size": 4}}
    assert main(arguments(output, **changed)) == 1
    assert "encoder.training.steps (got 2, the file has 3)" in capsys.readouterr().err
    assert main(arguments(output, "--force", **changed)) == 0
    record = json.loads((output / "encoders" / "all" / "multitask.json").read_text())
    assert record["step"] == 2


def test_force_trains_again_what_came_of_other_weights(
    arguments: Arguments, tiny_encoder: Callable[[str], Path], tmp_path: Path
) -> None:
    output, encoder = tmp_path / "out", tmp_path / "encoder"
    settings = {"frozen": [], "all_tasks": True}

    def run_with(weights: Path, *options: str) -> int:
        shutil.rmtree(encoder, ignore_errors=True)
        shutil.copytree(weights, encoder)
        return main([*arguments(output, *options, **settings), "--encoder", str(encoder)])

    def base() -> str:
        record = json.loads((output / "encoders" / "all" / "multitask.json").read_text())
        return str(record["base"]["weights_sha256"])

    assert run_with(tiny_encoder("bert")) == 0
    before = base()
    other = tmp_path / "other"
    shutil.copytree(output / "encoders" / "all", other)
    assert run_with(other) == 1
    assert run_with(other, "--force") == 0
    assert base() != before
    cell = json.loads((output / "cells" / "all_tasks" / "sport" / "as-is.json").read_text())
    assert cell["identity"]["encoder"]["weights_sha256"] == base()


def test_force_keeps_a_checkpoint_when_the_disk_is_full(
    arguments: Arguments,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "out"
    settings = {"frozen": [], "all_tasks": True, "multitask": {"steps": 3, "checkpoint_every": 1}}
    write = train_multitask.write_checkpoint

    def write_two(folder: Path, *rest: Any) -> Any:
        if folder.name == "step-00000003":
            raise CheckpointError("No space left on device. Make room there.")
        return write(folder, *rest)

    monkeypatch.setattr(train_multitask, "write_checkpoint", write_two)
    assert main(arguments(output, "--force", **settings)) == 1
    assert "The checkpoint of step 2 is whole" in capsys.readouterr().err
    assert (output / "encoders" / "all" / "run" / "step-00000002").is_dir()


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
    table = json.loads((output / "table.json").read_text(encoding="utf-8"))
    on_dev = {
        row["name"]: row["dev_average"][0] for row in table["rows"] if row["name"][:4] == "mean"
    }
    assert set(on_dev) == {f"mean-{count}/attention/float" for count in (1, 2, 4)}
    chosen = f"mean-{table['chosen_layers']['frozen']}/attention/float"
    assert on_dev[chosen] == max(on_dev.values())
    assert len(set(on_dev.values())) > 1, "or there was nothing to choose"


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


def test_a_damaged_cell(
    frozen: Path, arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Path(shutil.copytree(frozen, tmp_path / "out"))
    damaged = next((output / "cells").rglob("*.json"))
    damaged.write_bytes(damaged.read_bytes()[:50])
    assert main(arguments(output)) == 1
    assert f"{damaged}: cannot be read" in capsys.readouterr().err
    damaged.unlink()
    assert main(arguments(output)) == 0
    assert results_of(output) == results_of(frozen)


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


def test_loss_that_is_not_finite(
    arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(arguments(output, learning_rates=[1e30])) == 1
    error = capsys.readouterr().err
    assert "task topics, mean-2/attention/float, seed 0: epoch 1: the loss is" in error
    settings = {"frozen": [], "all_tasks": True}
    rates = {"multitask": {"steps": 3, "learning_rate": 1e30, "checkpoint_every": 1}}
    assert main(arguments(output, **settings, **rates)) == 1
    error = capsys.readouterr().err
    assert "step 2, task" in error
    assert "The checkpoint of step 1 is whole" in error or "is not finite" in error


def test_full_disk(
    frozen: Path, arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No file may grow past a limit: cells fit, features do not."""
    output = tmp_path / "out"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
        assert main(arguments(output)) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "Make room there" in capsys.readouterr().err
    assert not list((output / "scratch").iterdir())
    assert main(arguments(output)) == 0
    assert results_of(output) == results_of(frozen)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tasks": ["absent"]}, "has no task 'absent'"),
        ({"tasks": ["senses"]}, "senses/train.tsv, line 1: got the header"),
        ({"frozen": ["mean/attention/sgn"]}, "recipe 'mean/attention/sgn'"),
        ({"frozen": ["mean-9/attention/sign"]}, "encoder of 3 layers, expected at least 8"),
        ({"frozen": ["last/cls/sign"] * 2}, "twice. Remove one"),
        ({"head": {"epochs": 0}}, "head.epochs: got 0, expected at least 1"),
        ({"wsd": {"task": "senses", "layers": [9]}}, "wsd.layers: got [9], expected numbers from"),
        ({"head": {"epoch": 3}}, "got the unknown keys head.epoch, expected some of"),
        ({"multitask": {"steps": 0}}, "multitask.steps: got 0, expected at least 1"),
        ({"seeds": []}, "seeds: got (), expected different ones"),
        ({"student": True}, "expected single_task = true"),
        ({"learning_rates": [0]}, "learning_rates: got 0.0, expected numbers above 0"),
        ({"leave_one_type_out": ["last/cls/sign"], "types": ["NLI"]}, "types: got ['NLI']"),
        ({"leave_one_type_out": ["last/cls/sign"], "tasks": ["sport", "topics"]}, "Add others"),
        ({"leave_one_task_out": ["last/cls/sign"], "tasks": ["sport"]}, "expected at least two"),
        ({"max_length": 900}, "max_length: got 900, expected 5 to 64"),
        ({"wsd": {"task": "sport"}, "frozen": []}, "sport/train.tsv, line 1"),
        (
            {"single_task": True, "student": True, "distil": {"layers": 9}, "frozen": []},
            "distil.layers: got 9, expected at most 3",
        ),
    ],
)
def test_errors(
    arguments: Arguments,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, Any],
    message: str,
) -> None:
    assert main(arguments(tmp_path / "out", **changed)) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("\t", " ", 1), "test.tsv, line 1: got the header"),
        (lambda text: text + "\nfood\ta\tb", "columns, expected 2 (label, text)"),
        (lambda text: text + "\nfoood\tSoup.", "label 'foood' is not among the training labels"),
        (lambda text: "label\ttext_a\ttext_b\nfood\ta\tb", "of the form 'pair', expected 'single'"),
    ],
)
def test_unsound_test_rows(
    arguments: Arguments,
    grid_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[str], str],
    message: str,
) -> None:
    data = Path(shutil.copytree(grid_folder, tmp_path / "data"))
    path = data / "topics" / "test.tsv"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    assert main([*arguments(tmp_path / "out"), "--data", str(data)]) == 1
    assert message in capsys.readouterr().err


def test_outputs_that_are_refused(
    arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for output in (tmp_path, tmp_path / "notes.txt"):
        assert main(arguments(output)) == 1
        assert "holds something else than results" in capsys.readouterr().err
    (tmp_path / "notes.txt").rename(tmp_path / ".table.json.77.partial")  # of a run that was killed
    assert main(arguments(tmp_path, "--report-only")) == 0


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
