"""`bitheads train-heads` on a task of each kind: heads, report, and what is not done again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from task_of_each_kind import TASKS, make_tasks

from bitheads import Engine
from bitheads.engine.heads.head_file import read_head
from bitheads.export.config import BuildConfig
from bitheads.export.make_bundle import make_bundle
from bitheads.training.data.labelled_texts import read_labelled
from bitheads.training.many_heads.__main__ import main
from bitheads.training.many_heads.tasks import read_sets


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be written to."""
    return make_tasks(tmp_path_factory.mktemp("all-kinds"))


def arguments(data: Path, bundle: Path, output: Path, *more: str) -> list[str]:
    named = {"data": data, "bundle": bundle, "output": output, "config": data / "settings.toml"}
    options = [part for name, path in named.items() for part in (f"--{name}", str(path))]
    background = ("--background", str(data / "background.txt"))
    return [*options, *background, "--backend", "onnxruntime", "--json", *more]


def run(
    capsys: pytest.CaptureFixture[str], *command: Any, expect: int = 0
) -> tuple[dict[str, dict[str, Any]], str]:
    """The rows by task, and what was said."""
    assert main(arguments(*command)) == expect, capsys.readouterr().err
    printed = capsys.readouterr()
    return {row["task"]: row for row in json.loads(printed.out)["tasks"]}, printed.err


def test_every_kind_then_what_is_not_done(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = make_tasks(make(tmp_path / "tasks")), tmp_path / "heads"
    broken = make(data / "broken") / "train.tsv"
    broken.write_text("label\ttext\nsport\tone\nno tab\n")
    rows, said = run(capsys, data, tiny_bundle, output, expect=1)

    assert {task: row["kind"] for task, row in rows.items() if task != "broken"} == TASKS
    assert f"{broken}, line 3" in rows["broken"]["failures"]["reading"]
    assert "1 of 7 tasks failed, in whole or in part: broken" in said
    judged = {task: row["judged"] for task, row in rows.items() if task != "broken"}
    assert judged == {
        "topics": "test",
        "paraphrase": "dev",
        "subjects": "test",
        "lengths": "test",
        "sizes": "held out",
        "names": "test",
    }
    page = (output / "report.html").read_text(encoding="utf-8")
    assert all(f">{task}</a>" in page for task in rows)

    engine = Engine.load(tiny_bundle, backend="onnxruntime")
    for task in TASKS:
        engine.add_head(output / f"{task}.safetensors")
    test = read_labelled(data / "topics" / "test.tsv")
    top = engine.predict(test.texts, ["topics"])["topics"].top
    right = np.mean([got == label for got, label in zip(top, test.labels, strict=True)])
    assert right == pytest.approx(rows["topics"]["head"])
    low, high = rows["topics"]["interval"]
    assert low < right < high
    assert rows["topics"]["cost_us"] > 0

    # Each different text was encoded once, pairs by themselves and each of their texts.
    keys = [
        key.tobytes()
        for path in (output / "scratch").rglob("*.index.safetensors")
        for key in load_file(path)["keys"]
    ]
    assert len(keys) == len(set(keys))
    texts = {
        text
        for task in TASKS
        for part in read_sets(data / task, "ordinal" if task == "sizes" else None).values()
        for text in part.texts
    }
    parts = {part for text in texts if isinstance(text, tuple) for part in text}
    assert len(texts | parts) <= len(keys)

    # Nothing is left to do; what changes is done again, and nothing else.
    written = {path: path.stat().st_mtime_ns for path in output.glob("*.safetensors")}
    again, said = run(capsys, data, tiny_bundle, output, expect=1)
    assert again == rows
    assert "jobs on" not in said
    assert {path: path.stat().st_mtime_ns for path in written} == written

    broken.write_text("label\ttext\nsport\tone\nfood\ttwo\nsport\tthree\nfood\tfour\n" * 1)
    with (data / "topics" / "train.tsv").open("a", encoding="utf-8") as file:
        file.write("\nsport\tThe striker scored.")
    rows, said = run(capsys, data, tiny_bundle, output)
    assert "4 jobs on" in said
    assert "topics: encoding 1 texts" in said
    changed = {path.stem for path in output.glob("*.safetensors")} - {
        path.stem for path, time_ns in written.items() if path.stat().st_mtime_ns == time_ns
    }
    assert changed == {"topics", "broken"}
    assert rows["topics"]["rows"]["train"] == 121

    # Another setting of one task; a head that was changed by others; a head of somebody's.
    settings = data / "settings.toml"
    settings.write_text(settings.read_text() + "[tasks.names]\nseed = 3\n")
    (output / "lengths.safetensors").unlink()
    _, said = run(capsys, data, tiny_bundle, output)
    assert "2 jobs on" in said  # linear models know nothing of seeds
    assert read_head(output / "names.safetensors").training["settings"]["seed"] == 3


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.long
def test_heads_of_others_are_kept(
    all_kinds: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = make(tmp_path / "heads")
    (output / "topics.safetensors").write_text("mine")
    rows, _ = run(capsys, all_kinds, tiny_bundle, output, "--tasks", "topics", expect=1)
    assert "Pass force=True (--force)" in rows["topics"]["failures"]["head"]
    assert (output / "topics.safetensors").read_text() == "mine"
    run(capsys, all_kinds, tiny_bundle, output, "--tasks", "topics", "--force")
    assert read_head(output / "topics.safetensors").task == "topics"


@pytest.mark.long
def test_learning_curve_and_floats(
    all_kinds: Path,
    tiny_bundle: Path,
    build_bundle: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from bitheads.engine.features.spec import Quantization

    floats = build_bundle("bert", quantization=Quantization.FLOAT16)
    more = ("--tasks", "topics", "names", "--learning-curve", "--float-bundle", str(floats))
    output = tmp_path / "heads"
    rows, _ = run(capsys, all_kinds, tiny_bundle, output, *more)
    for row in rows.values():
        sizes = [point["size"] for point in row["learning_curve"]]
        assert sizes == sorted(sizes)
        assert sizes[-1] == row["rows"]["train"]
        assert row["learning_curve"][-1]["head"] == row["head"]
        assert 0 <= row["float_head"] <= 1
    assert "head on floats" in (output / "report.html").read_text(encoding="utf-8")
    command = (all_kinds, tiny_bundle, output, "--float-bundle", str(tiny_bundle))
    assert main(arguments(*command)) == 1
    assert "got sign codes, expected float16" in capsys.readouterr().err


@pytest.mark.long
def test_fine_tuned_encoders(
    all_kinds: Path,
    tiny_bundle: Path,
    tiny_encoder: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # One thread: beside other processes those of a tiny encoder only wait for each other.
    more = ("--tasks", "topics", "names", "--fine-tune", "--jobs", "1")
    encoder = ("--encoder", str(tiny_encoder("bert")), "--fine-tune-epochs", "1")
    rows, _ = run(capsys, all_kinds, tiny_bundle, tmp_path / "heads", *more, *encoder)
    assert 0 <= rows["topics"]["fine_tuned"] <= 1
    assert "fine_tuned" not in rows["names"]  # spans
    other = ("--encoder", str(tiny_encoder("roberta")))
    rows, _ = run(capsys, all_kinds, tiny_bundle, tmp_path / "others", *more, *other, expect=1)
    assert "those of the bundle" in rows["topics"]["failures"]["fine tuned"]
    assert "head" in rows["topics"]


def one_token_type(encoder: Path, folder: Path) -> Path:
    """The encoder without a type for a pair's second text."""
    shutil.copytree(encoder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "type_vocab_size": 1}))
    weights = load_file(folder / "model.safetensors")
    table = "embeddings.token_type_embeddings.weight"
    save_file({**weights, table: weights[table][:1]}, folder / "model.safetensors")
    return folder


@pytest.mark.long
def test_pairs_of_an_encoder_of_single_texts(
    all_kinds: Path,
    tiny_encoder: Any,
    few_texts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    encoder = one_token_type(tiny_encoder("bert"), tmp_path / "encoder")
    bundle, output = tmp_path / "bundle", tmp_path / "heads"
    make_bundle(BuildConfig(encoder=str(encoder), calibration=few_texts, output=bundle))
    rows, _ = run(capsys, all_kinds, bundle, output, "--tasks", "paraphrase")
    assert "failures" not in rows["paraphrase"]
    engine = Engine.load(bundle, backend="onnxruntime")
    engine.add_head(output / "paraphrase.safetensors")
    dev = read_labelled(all_kinds / "paraphrase" / "dev.tsv")
    top = engine.predict(dev.texts, ["paraphrase"])["paraphrase"].top
    right = np.mean([got == label for got, label in zip(top, dev.labels, strict=True)])
    assert right == pytest.approx(rows["paraphrase"]["head"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--tasks", "topic"), "has no task 'topic'"),
        (("--exclude-tasks", *TASKS), "got no task, expected a folder per task"),
        (("--epochs", "0"), "epochs: got 0, expected at least 1"),
    ],
)
def test_errors(
    all_kinds: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    message: str,
) -> None:
    assert main(arguments(all_kinds, tiny_bundle, tmp_path / "heads", *more)) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[tasks.topic]\nkind = "ordinal"\n', "settings: got some of 'topic'"),
        ("[tasks]\ntopics = 3\n", "settings.toml: tasks.topics: got 3, expected a table"),
        ("tasks = 3\n", "settings.toml: tasks: got 3, expected a table"),
        ('[tasks.topics]\nkinds = "x"\n', "got the unknown keys tasks.topics.kinds"),
        ("keep = 0.1\n", "settings.toml: keep: got 0.1, expected 0.5 to 1"),
        ("value_range = [1]\n", "value_range: got (1.0,), expected the least and the largest"),
    ],
)
def test_configurations_that_are_none(
    all_kinds: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    message: str,
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    command = arguments(all_kinds, tiny_bundle, tmp_path / "heads", "--config", str(path))
    assert main(command) == 1
    assert message in capsys.readouterr().err


def is_gone(group: int) -> bool:
    """Whether no process of the group is left, a moment later at the latest."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.long
def test_interrupt_loses_only_what_is_in_work(
    all_kinds: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "heads"
    slow = tmp_path / "slow.toml"
    slow.write_text("epochs = 2\n[tasks.topics]\nepochs = 100000\npatience = 100000\n")
    command = arguments(all_kinds, tiny_bundle, output, "--jobs", "2", "--config", str(slow))
    chosen = ["--tasks", "topics", "paraphrase", "lengths"]
    process = subprocess.Popen(
        [sys.executable, "-m", "bitheads", "train-heads", *command, *chosen],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "5/6" in line:  # all but the head that never ends
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            break
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 130
    assert "what is done stays done" in rest
    assert "Traceback" not in rest
    assert not list(output.rglob("*.partial"))
    assert not (output / "topics.safetensors").exists()
    assert is_gone(process.pid)
    slow.write_text("epochs = 2\n")
    shutil.rmtree(output / "scratch")
    more = ("--config", str(slow), *chosen)
    rows, said = run(capsys, all_kinds, tiny_bundle, output, *more)
    assert "1 jobs on 1 processes" in said
    assert all("head" in row for row in rows.values())
