"""`bitheads predict`: its table, its JSON, its errors."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from head_kinds import SINGLE, TEXTS, heads_of_every_kind
from random_heads import random_head

from bitheads import Engine
from bitheads.engine.commands.predict import main
from bitheads.engine.heads.head_file import write_head


@pytest.fixture
def bundle(own_bundle: Path) -> Path:
    """A bundle with a head for texts and one for pairs."""
    spec = Engine.load(own_bundle).spec
    for task, form in (("tone", "single"), ("same", "pair")):
        write_head(
            random_head(spec, task=task, form=form), own_bundle / "heads" / f"{task}.safetensors"
        )
    return own_bundle


def test_demo_prints_a_table_and_the_cost(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["--bundle", str(bundle), "--demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["text", "tone"]
    pairs = next(i for i, line in enumerate(lines) if line.split() == ["pair", "same"])
    assert all("label-" in line for line in lines[1 : pairs - 1])
    assert pairs - 2 == 28
    costs = "\n".join(lines[pairs:])
    assert "36 texts" in costs
    for word in ("tokenize", "encode", "pack", "heads", "these codes (sign)", "all 3 layers"):
        assert word in costs


def test_narrow_terminals_get_blocks(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["--bundle", str(bundle), "--demo", "--tasks", "tone"]) == 0
    assert any(line.startswith("    tone: label-") for line in capsys.readouterr().out.splitlines())


def test_a_table_of_every_kind(
    own_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not accepted is a dash, and how much is accepted is said below."""
    for head in heads_of_every_kind(Engine.load(own_bundle), TEXTS):
        write_head(head, own_bundle / "heads" / f"{head.task}.safetensors")
    monkeypatch.setenv("COLUMNS", "9999")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(SINGLE).encode())))
    assert main(["--bundle", str(own_bundle)]) == 0
    lines = capsys.readouterr().out.splitlines()
    answers = Engine.load(own_bundle).predict(SINGLE)
    columns = [lines[0].index(task) for task in lines[0].split()[1:]]
    assert lines[0].split()[1:] == list(answers)
    cells: set[str] = set()
    for row, line in enumerate(lines[1 : len(SINGLE) + 1]):
        found = [line[a:b].strip() for a, b in pairwise([*columns, None])]
        for cell, (task, prediction) in zip(found, answers.items(), strict=True):
            value = None if prediction.values is None else f"{prediction.values[row]:.4g}"
            likely = dict(zip(prediction.labels, prediction.probabilities[row], strict=True))
            if not prediction.accepted[row]:
                wanted = "-"
            elif task.startswith("multi_label"):
                has = prediction.selected[row]
                wanted = ", ".join(f"{label} {likely[label]:.2f}" for label in has) or "(none)"
            elif task.startswith("token_label"):
                parts = [
                    f'{span.label} "{SINGLE[row][span.start : span.end]}" {span.probability:.2f}'
                    for span in prediction.spans[row]
                ]
                wanted = "; ".join(parts) or "(none)"
            elif task.startswith("regression"):
                wanted = str(value)
            else:
                label = prediction.top[row]
                assert label is not None
                wanted = f"{label} {likely[label]:.2f}" + (f" ({value})" if value else "")
            assert cell == wanted
            cells.add(cell)
    assert {"-", "(none)"} <= cells
    accepted = sum(int(prediction.accepted.sum()) for prediction in answers.values())
    given = f"{accepted} of their {len(answers) * len(SINGLE)} answers"
    assert lines[len(SINGLE) + 2] == f"{len(answers)} heads were asked, and stand by {given}"


def test_blocks_tell_accepted_answers_alone(
    own_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a dash for a text that is no head's business."""
    for head in heads_of_every_kind(Engine.load(own_bundle), TEXTS):
        write_head(head, own_bundle / "heads" / f"{head.task}.safetensors")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(SINGLE).encode())))
    tasks = ["ordinal-rejects-single", "regression-rejects-single"]
    assert main(["--bundle", str(own_bundle), "--tasks", *tasks]) == 0
    shown = capsys.readouterr().out.split("\n\n")[0].splitlines()
    starts = [shown.index(text) for text in SINGLE]
    answers = Engine.load(own_bundle).predict(SINGLE, tasks)
    accepted = [[task for task in tasks if answers[task].accepted[row]] for row in range(18)]
    for found, (start, end) in zip(accepted, pairwise([*starts, None]), strict=True):
        told = [line.split(":")[0].strip() for line in shown[start + 1 : end]]
        assert told == (found or ["-"])
    assert {0, 1, 2} == {len(found) for found in accepted}


def test_spans_in_the_table(
    own_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their texts, which may have line breaks; of one that was cut it says so."""
    texts = ["😀 Otto\u2028Hahn", "Otto Hahn lived here. " * 30, "Why?"]
    with Engine.load(own_bundle) as engine:
        head = random_head(engine.spec, "names", kind="token_label", labels=("A",), seed=1)
        head.output_bias[:] -= [9, 3, 0]  # words go on with a span
        write_head(head, own_bundle / "heads" / "names.safetensors")
        same = random_head(engine.spec, "same", form="pair")
        write_head(same, own_bundle / "heads" / "same.safetensors")
        engine.add_head(own_bundle / "heads" / "names.safetensors")
        found = engine.predict(texts)["names"]
    monkeypatch.setenv("COLUMNS", "40")
    lines = "\n".join([texts[0], "one\ttwo", *texts[1:]])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    assert main(["--bundle", str(own_bundle)]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if "names: " in line]
    wanted = [
        "; ".join(
            f'A "{text[span.start : span.end]}" {span.probability:.2f}'.replace("\u2028", " ")
            for span in spans
        )
        for text, spans in zip(texts, found.spans, strict=True)
    ]
    assert found.truncated_at[1] is not None
    wanted[1] += f" (read up to character {found.truncated_at[1]})"
    assert shown == [f"    names: {cell}" for cell in wanted]
    assert '"😀 Otto Hahn"' in shown[0]


def test_heads_that_cannot_refuse_are_not_counted(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--bundle", str(bundle), "--demo"]) == 0
    assert "accepted" not in capsys.readouterr().out


def test_json_lines_from_a_file(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("one text\r\n\nfirst\tsecond\nÜmläut ☃\n", encoding="utf-8")
    assert main(["--bundle", str(bundle), "--input", str(texts), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == ["one text", ["first", "second"], "Ümläut ☃"]
    assert [list(row["tasks"]) for row in rows] == [["tone"], ["same"], ["tone"]]

    engine = Engine.load(bundle)
    expected = engine.predict(["one text", ("first", "second"), "Ümläut ☃"])["tone"]
    assert rows[2]["tasks"]["tone"]["label"] == expected.top[2]
    assert rows[2]["tasks"]["tone"]["probability"] == pytest.approx(
        float(expected.probabilities[2].max()), abs=1e-3
    )


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.csv", 'label,text\nx,"one, ""two"""\ny,three\n', []),
        ("a.tsv", 'label\ttext\nx\tone, "two"\ny\tthree\n', []),
        ("a.tsv", 'text\tid\n"one, ""two"""\t1\nthree\t2\n', ["--quotes", "csv"]),
        ("a.dat", 'body;\n"one, ""two""";\nthree;\n'.replace(";", ",x"), ["--format", "csv"]),
        ("a.jsonl", '{"text": "one, \\"two\\""}\n{"text": "three"}\n', []),
        ("a.txt", 'one, "two"\nthree\n', []),
        ("a", 'text\r\none, "two"\r\n\r\nthree', []),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_files_are_read_as_their_suffix_says(
    bundle: Path,
    tmp_path: Path,
    name: str,
    content: str,
    options: list[str],
    encoding: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Labels, quotes and byte order marks are no part of a text."""
    path = tmp_path / name
    path.write_text(content, encoding=encoding)
    if "body" in content:
        options = [*options, "--text-column", "body"]
    assert main(["--bundle", str(bundle), "--input", str(path), "--json", *options]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == ['one, "two"', "three"]


def test_pairs_of_a_table(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text("q,a\none,two\n")
    columns = ["--text-column", "q", "--pair-column", "a"]
    assert main(["--bundle", str(bundle), "--input", str(path), "--json", *columns]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == ["one", "two"]


def test_many_files(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `bitheads encode` takes them, in the order of their paths."""
    folder = tmp_path / "in" / "day=1"
    folder.mkdir(parents=True)
    (folder / "_SUCCESS").touch()
    (folder / "b.jsonl").write_text('{"text": "three"}\n')
    (folder / "a.jsonl").write_text('{"text": "one"}\n\n{"text": "two"}\n')
    with gzip.open(tmp_path / "c.jsonl.gz", "wt") as file:
        file.write('{"text": "four"}')
    glob = str(tmp_path / "in" / "*" / "*.jsonl")
    for given in ([str(tmp_path / "in")], [glob], [(tmp_path / "in").as_uri()]):
        more = ["--input", str(tmp_path / "c.jsonl.gz"), "--json"]
        assert main(["--bundle", str(bundle), "--input", *given, *more]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["text"] for row in rows] == ["one", "two", "three", "four"]
    (tmp_path / "a.txt").write_text("text\none\n")
    (tmp_path / "b.txt").write_text("first\tsecond\r\n\n")
    texts = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    assert main(["--bundle", str(bundle), "--input", *texts, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == ["one", ["first", "second"]]
    assert main(["--bundle", str(bundle), "--input", *texts, str(folder)]) == 1
    assert "expected files of one format" in capsys.readouterr().err
    (tmp_path / "b.txt").write_bytes(b"\xff")
    assert main(["--bundle", str(bundle), "--input", *texts]) == 1
    assert "b.txt: cannot be read" in capsys.readouterr().err


def run_in(environment: dict[str, str], *options: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a process whose streams have what encoding the environment says."""
    command = [sys.executable, "-m", "bitheads", "predict", *options]
    clean = {k: v for k, v in os.environ.items() if k not in ("LANG", "LC_ALL", "LC_CTYPE")}
    return subprocess.run(command, capture_output=True, env={**clean, **environment}, check=False)


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "utf-16"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_output_that_is_not_utf8(bundle: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """JSON is UTF-8 all the same, and a table has escapes for what its encoding has not."""
    path = tmp_path / "texts.txt"
    path.write_text("café €\n" + "long " * 20, encoding="utf-8")
    fixed = ["--bundle", str(bundle), "--input", str(path), "--tasks", "tone"]
    done = run_in(environment, *fixed, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode("utf-8").splitlines()[0])["text"] == "café €"
    done = run_in(environment, *fixed)
    assert done.returncode == 0, done.stderr
    encoding = environment.get("PYTHONIOENCODING", "ascii")
    shown = {
        "latin-1": r"café \u20ac",
        "utf-16": "café €",
        "ascii": r"caf\xe9 \u20ac",
    }
    assert shown[encoding] in done.stdout.decode(encoding)
    assert b"2 texts" in done.stdout.replace(b"\0", b"")


def test_standard_input(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(b"from a pipe \xff\n"))
    monkeypatch.setattr(sys, "stdin", stream)
    assert main(["--bundle", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "from a pipe \ufffd"


def test_a_closed_pipe_is_no_error(bundle: Path) -> None:
    command = f"{sys.executable} -m bitheads predict --bundle {bundle} --demo --json | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bundle", "absent", "--demo"], "no bundle.json there"),
        (["--demo", "--tasks", "tnoe"], "task 'tnoe': no such head is loaded"),
        (["--input", "absent.txt"], "absent.txt: cannot be read"),
        (["--input", "/dev/null"], "no texts to predict"),
        (["--demo", "--backend", "cuda"], "backend: got 'cuda'"),
        (["--demo", "--max-batch-tokens", "0"], "max_batch_tokens: got 0"),
        (["--format", "csv"], "--format csv: standard input is read as plain lines"),
        (["--input", "a.txt", "--text-column", "t"], "plain lines have neither columns nor quotes"),
        (["--input", "absent.csv"], "absent.csv: cannot be read"),
        (["--input", "absent/*.csv"], "is a glob that matches no file"),
        (["--input", "-", "a.txt"], "expected files, or '-' for standard input alone"),
    ],
)
def test_errors(
    bundle: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--bundle", str(bundle), *options]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert not printed.out


def test_a_bundle_without_heads(own_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bundle", str(own_bundle), "--demo"]) == 1
    assert "has no heads" in capsys.readouterr().err
