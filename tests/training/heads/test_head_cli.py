"""`bitheads train-head` on real texts and the real encoder, and what goes wrong with it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bitheads import Engine
from bitheads.engine.errors import InputError
from bitheads.engine.heads.head_file import read_head
from bitheads.training.data.labelled_texts import read_labelled
from bitheads.training.heads.__main__ import main
from bitheads.training.heads.config import HeadSettings
from bitheads.training.heads.train_head import train_head_on

DEV_SCORE = re.compile(r"^ *(?:linear|\d+) .* (-?\d+\.\d{4}) +\d+\.\d(?:  \*)?$", re.MULTILINE)
DATA = Path(__file__).parents[2] / "data"

pytestmark = pytest.mark.usefixtures("few_background")


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The shipped topics, cut into train, dev and test."""
    folder = tmp_path_factory.mktemp("topics")
    header, *rows = (DATA / "topics.tsv").read_text(encoding="utf-8").splitlines()
    parts = {"train": rows[:140], "dev": rows[140:190], "test": rows[190:]}
    for name, part in parts.items():
        (folder / f"{name}.tsv").write_text("\n".join([header, *part]), encoding="utf-8")
    return {name: folder / f"{name}.tsv" for name in parts}


def arguments(bundle: Path, files: dict[str, Path], output: Path, *more: str) -> list[str]:
    named = [part for name, path in files.items() for part in (f"--{name}", str(path))]
    required = ["--bundle", str(bundle), "--task", "topic", "--output", str(output)]
    return [*required, *named, *more]


def test_learns_and_is_served(
    minilm_bundle: Path,
    topics: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "heads" / "topic.safetensors"
    assert main(arguments(minilm_bundle, topics, output, "--epochs", "6", "--json")) == 0
    printed = capsys.readouterr()
    assert "epoch  train loss" in printed.err
    metrics = json.loads(printed.out)["metrics"]
    assert metrics["test_accuracy"] >= 0.9
    assert metrics["test_fold_max_abs_error"] <= 1e-4

    engine = Engine.load(minilm_bundle)
    engine.add_head(output, replace=True)  # a topic head is shipped
    test = read_labelled(topics["test"])
    served = engine.predict(test.texts, ["topic"])["topic"]
    accuracy = np.mean([got == want for got, want in zip(served.top, test.labels, strict=True)])
    assert accuracy == pytest.approx(metrics["test_accuracy"])

    head = read_head(output)
    assert head.training["data"]["train"]["sha256"] == read_labelled(topics["train"]).sha256
    assert head.spec.id == engine.spec.id


@pytest.mark.parametrize("form", ["pair", "two_texts"])
@pytest.mark.parametrize(
    "pooling", ["mean", *(pytest.param(name, marks=pytest.mark.long) for name in ("cls", "last"))]
)
def test_pairs_and_other_poolings(
    tiny_bundle: Path, tmp_path: Path, pooling: str, form: str
) -> None:
    pairs = dict.fromkeys(("train", "dev"), DATA / "paraphrase.tsv")
    output = tmp_path / "topic.safetensors"
    options = ("--epochs", "2", "--position-pooling", pooling, "--dtype", "float16")
    assert main(arguments(tiny_bundle, pairs, output, *options, "--form", form)) == 0
    head = read_head(output)
    assert head.form == form
    assert head.position_pooling.value == pooling
    assert head.query is None
    # A tiny head's header is no longer than its weights: two bytes each, as asked for.
    assert output.stat().st_size < 2 * head.nbytes


def test_of_the_forms_of_pairs_one_is_kept_and_served(
    minilm_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (DATA / "topics.tsv").read_text(encoding="utf-8").splitlines()[1:]
    texts = [row.split("\t")[1] for row in rows]
    files = {}
    for part, names in (("train", range(60)), ("dev", range(60, 100)), ("test", range(100, 160))):
        pairs = [(texts[i], texts[i if i % 2 else i + 1]) for i in names]
        lines = [f"{'same' if a == b else 'other'}\t{a}\t{b}" for a, b in pairs]
        files[part] = tmp_path / f"{part}.tsv"
        files[part].write_text("\n".join(["label\ttext_a\ttext_b", *lines]), encoding="utf-8")
    output = tmp_path / "same.safetensors"
    shorter = ("--epochs", "3", "--no-background", "--json")
    assert main(arguments(minilm_bundle, files, output, *shorter)) == 0
    printed = capsys.readouterr()
    _, after = printed.err.split("by themselves:")
    apart, joint = after.split("train: 60 pair texts")
    scores = [max(map(float, DEV_SCORE.findall(part))) for part in (apart, joint)]
    metrics = json.loads(printed.out)["metrics"]
    assert metrics["test_accuracy"] >= 0.9
    apart_is_kept = scores[0] + 0.5 / 40**0.5 >= scores[1]  # of 40 dev texts
    assert metrics["dev_accuracy"] == pytest.approx(scores[not apart_is_kept], abs=1e-4)
    form = "two_texts" if apart_is_kept else "pair"
    assert read_head(output).form == form
    assert f"form: {form}" in printed.err
    engine = Engine.load(minilm_bundle)
    engine.add_head(output, replace=True)
    test = read_labelled(files["test"])
    served = engine.predict(test.texts, ["topic"])["topic"]
    right = [got == want for got, want in zip(served.top, test.labels, strict=True)]
    assert np.mean(right) == pytest.approx(metrics["test_accuracy"])


@pytest.mark.long
def test_without_dev(
    minilm_bundle: Path,
    topics: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of few texts: each is held back once; calibration and rejection are of those."""
    header, *rows = topics["train"].read_text(encoding="utf-8").splitlines()
    few = tmp_path / "few.tsv"
    few.write_text("\n".join([header, *rows[:40]]), encoding="utf-8")
    output = tmp_path / "topic.safetensors"
    files = {"train": few, "test": topics["test"]}
    assert main(arguments(minilm_bundle, files, output, "--epochs", "3", "--json")) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics["test_accuracy"] >= 0.85
    assert metrics["test_accepted"] >= 0.9
    training = read_head(output).training
    assert 0.7 <= training["linear_score"] <= 1
    assert training["held_out_score"] >= 0.7


@pytest.mark.parametrize(
    ("form", "table", "message"),
    [
        (
            "two_texts",
            "topics.tsv",
            "form: got 'two_texts' for single texts, expected it for pairs",
        ),
        ("single", "paraphrase.tsv", "form: got 'single' for pairs, expected one of"),
    ],
)
def test_forms_that_texts_cannot_have(
    tiny_bundle: Path, tmp_path: Path, form: str, table: str, message: str
) -> None:
    sets = {"train": read_labelled(DATA / table)}
    engine = Engine.load(tiny_bundle)
    with pytest.raises(InputError, match=re.escape(message)):
        train_head_on(engine, engine.encode, sets, HeadSettings("topic", form=form))


def test_same_seed_same_head(tiny_bundle: Path, topics: dict[str, Path], tmp_path: Path) -> None:
    outputs = [tmp_path / f"{i}" / "topic.safetensors" for i in range(2)]
    for output in outputs:
        assert main(arguments(tiny_bundle, topics, output, "--epochs", "1")) == 0
    first, second = (read_head(output).tensors for output in outputs)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_refuses_to_overwrite(
    tiny_bundle: Path, topics: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "topic.safetensors"
    output.write_text("mine")
    assert main(arguments(tiny_bundle, topics, output)) == 1
    assert "Pass force=True (--force)" in capsys.readouterr().err
    assert output.read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--learning-rate", "1e30"), "the loss is nan"),
        (("--attention-heads", "7"), "expected a divisor of dim 64"),
        (("--train", str(DATA / "paraphrase.tsv")), "got single texts, expected pair texts"),
        (("--dev", "absent.tsv"), "absent.tsv: cannot be read"),
        (("--task", "a/b"), "task name: got 'a/b'"),
        (("--output", "head.pt"), "got the suffix '.pt'"),
    ],
)
def test_errors(
    tiny_bundle: Path,
    topics: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    output = tmp_path / "heads" / "topic.safetensors"
    assert main(arguments(tiny_bundle, topics, output, *options)) == 1
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_interrupt_leaves_nothing(
    tiny_bundle: Path, topics: dict[str, Path], tmp_path: Path
) -> None:
    output = tmp_path / "heads" / "topic.safetensors"
    command = arguments(tiny_bundle, topics, output, "--epochs", "100000", "--patience", "100000")
    process = subprocess.Popen(
        [sys.executable, "-m", "bitheads", "train-head", *command],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.lstrip().startswith("2 "):  # the second epoch is done: training is under way
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait() == 130
    assert "interrupted: nothing was written" in rest
    assert "Traceback" not in rest
    assert not output.exists()
    assert not list(tmp_path.rglob("*.partial"))
    process.stderr.close()
