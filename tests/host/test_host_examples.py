"""The examples do what they are shown doing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from host_build import ROOT, run
from tokenizers import Tokenizer

from bitheads import Engine
from bitheads.engine.answer_parts import json_answers
from bitheads.engine.bundle import TOKENIZER
from bitheads.export.tokenizer.graph import run_graph


def test_the_embedding_example(host_build: Path, demo_bundle: Path) -> None:
    shown = run(host_build / "embed", demo_bundle)
    assert shown == "sentiment: pos\nsentiment: neg\n"
    assert len((ROOT / "host/examples/embed.cpp").read_text().splitlines()) < 60


def test_the_example_of_many_callers(host_build: Path, demo_bundle: Path) -> None:
    program, lines = host_build / "many_callers", "What a lovely film.\nThe plot makes no sense.\n"
    assert run(program, demo_bundle, "sentiment", stdin=40 * lines) == 40 * "pos\nneg\n"
    wrong = subprocess.run(
        [program, demo_bundle, "nothing"], input=lines, capture_output=True, text=True, check=False
    )
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr.startswith("task 'nothing': no such head is loaded")


def test_the_example_of_gpus(host_build: Path, demo_bundle: Path) -> None:
    """Where there is none, or no plugin: the processor, and why."""
    command = [host_build / "on_a_gpu", demo_bundle, "sentiment", "What a lovely film."]
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=hidden, capture_output=True, text=True, check=True)
    assert done.stdout == "pos\n"
    assert done.stderr.startswith("openvino ")
    assert len(done.stderr.split()) > 5


def test_letters_that_folding_would_change(demo_bundle: Path) -> None:
    """In a real vocabulary, where they are no unknown words."""
    texts = [
        "\u039a\u03bb\u03ac\u03b4\u03b5\u03bf\u03c2 5 \u00b5m, stra\u00dfe",
        "a\ue000b\ufffd \U000fe334 c",
    ]
    own = Tokenizer.from_file(str(demo_bundle / TOKENIZER))
    expected = [own.encode(text, add_special_tokens=False).ids for text in texts]
    assert not any(own.token_to_id("[UNK]") in ids for ids in expected)
    got = run_graph(demo_bundle / "host" / "tokenizer.xml", texts)
    assert [ids.tolist() for ids in got] == expected


def test_the_command_line_answers_as_python_does(host_build: Path, demo_bundle: Path) -> None:
    lines = (ROOT / "engine/data/demo.tsv").read_text(encoding="utf-8").splitlines()[1:]
    # A line that is blank is no text; carriage returns are no part of one; quotes are escaped.
    stdin = "\n".join([*lines, "", '  "quoted" \\ \x07', "windows\r"]) + "\n"
    answers = [
        json.loads(line)
        for line in run(
            host_build / "predict_lines", demo_bundle, "--precision", "fp32", stdin=stdin
        ).splitlines()
    ]
    texts = [tuple(t) if isinstance(t := answer["text"], list) else t for answer in answers]
    assert len(texts) == len(lines) + 2
    assert texts[-2:] == ['  "quoted" \\ \x07', "windows"]
    # In bf16 the last bits depend on what else is in a batch.
    engine = Engine.load(demo_bundle, backend="openvino", precision="fp32")
    expected = {task: json_answers(found) for task, found in engine.predict(texts).items()}
    for row, (text, answer) in enumerate(zip(texts, answers, strict=True)):
        is_single = isinstance(text, str)
        asked = {
            task for task, info in engine.tasks.items() if (info.form == "single") == is_single
        }
        assert set(answer["tasks"]) == asked
        for task, found in answer["tasks"].items():
            wanted = expected[task][row]
            assert wanted is not None
            assert found.keys() == wanted.keys()
            for name, value in found.items():
                is_near = isinstance(value, (float, dict))
                near = pytest.approx(wanted[name], abs=1e-3) if is_near else wanted[name]
                assert value == near, (task, name)


def test_the_command_line_takes_tasks_and_options(host_build: Path, host_bundle: Path) -> None:
    command = (host_build / "predict_lines", host_bundle, "--tasks", "attends,pairs")
    stdin = "one\nfirst\tsecond\n"
    lines = run(*command, "--precision", "fp32", "--threads", "1", stdin=stdin).splitlines()
    assert [list(json.loads(line)["tasks"]) for line in lines] == [["attends"], ["pairs"]]


def test_a_byte_order_mark_is_no_text(host_build: Path, host_bundle: Path) -> None:
    stdin = "\N{ZERO WIDTH NO-BREAK SPACE}one\n\N{ZERO WIDTH NO-BREAK SPACE}two\n"
    lines = run(host_build / "predict_lines", host_bundle, stdin=stdin).splitlines()
    assert [json.loads(line)["text"] for line in lines] == [
        "one",
        "\N{ZERO WIDTH NO-BREAK SPACE}two",
    ]


def test_an_error_names_the_line(host_build: Path, host_bundle: Path) -> None:
    """Blank lines, lines of the other form and those of chunks before count."""
    lines = [b"a\tb", b"", *[b"one"] * 5000, b"a\tb", b"\xff"]
    done = subprocess.run(
        [host_build / "predict_lines", host_bundle],
        input=b"\n".join(lines),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: line 5004: byte 0")


def test_answers_that_cannot_be_written_are_an_error(host_build: Path, host_bundle: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [host_build / "predict_lines", host_bundle],
            input="one\n",
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "could not be written" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no bundle named"),
        (("--threads",), "wants a value"),
        (("bundle", "--nonsense", "1"), "unknown argument"),
        (("bundle", "--threads", "2x"), "--threads: got '2x', expected a whole number"),
        (("BUNDLE", "--tasks", "nothing"), "no head answers the task nothing"),
        (("/no/bundle",), "no file"),
    ],
)
def test_the_command_line_refuses(
    host_build: Path, host_bundle: Path, arguments: tuple[str, ...], message: str
) -> None:
    given = [str(host_bundle) if word == "BUNDLE" else word for word in arguments]
    command = [host_build / "predict_lines", *given]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    assert message in done.stderr
