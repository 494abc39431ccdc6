"""What the documents tell people to type works."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import shlex
import textwrap
from pathlib import Path
from typing import Any

import pytest
from random_heads import random_head

import bitheads
from bitheads import Engine
from bitheads.__main__ import COMMANDS
from bitheads.engine import errors, store
from bitheads.engine.heads.head_file import write_head
from bitheads.training.heads.background import default_background

ROOT = Path(__file__).parent.parent
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/benchmarks.md",
    "docs/cpp.md",
    "docs/embeddings.md",
    "docs/encoders.md",
    "docs/environment.md",
    "docs/gpu.md",
    "docs/query.md",
    "docs/quickstart.md",
    "docs/search.md",
    "docs/security.md",
    "docs/serving.md",
    "docs/store.md",
    "docs/tasks.md",
    "docs/training.md",
    "docs/troubleshooting.md",
    "examples/README.md",
)
README_LINES = 160
PARSERS = {
    "benchmarks": "benchmarks.__main__",
    "bitheads.engine.commands.serve": "bitheads.engine.serve.settings",
}
"""Where a command's parser is, if not in the module that runs it."""

NAMED = re.compile(rf"\bbitheads ({'|'.join(COMMANDS)})(?![\w-])([^`\n]*)")
MODULE = re.compile(r"python -m ((?:export|training|benchmarks)\b[\w.]*)([^`\n]*)")


def commands() -> list[tuple[str, list[str]]]:
    """(module, arguments) of every command of ours in the documents."""
    found = []
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8").replace("\\\n", " ")
        for name, arguments in NAMED.findall(text):
            found.append((COMMANDS[name].module, split(arguments)))
        for module, arguments in MODULE.findall(text):
            name = module if module == "benchmarks" else f"bitheads.{module}"
            found.append((name, split(arguments)))
    return found


def split(arguments: str) -> list[str]:
    """As a shell does, without where the output goes."""
    words = shlex.split(arguments, comments=True)
    return words[: words.index(">")] if ">" in words else words


def test_there_are_commands() -> None:
    assert len(commands()) >= 15


@pytest.mark.parametrize(("module", "arguments"), commands(), ids=lambda value: str(value)[:60])
def test_commands_parse(module: str, arguments: list[str]) -> None:
    parser = importlib.import_module(PARSERS.get(module, module))._parser()
    if arguments and "--help" not in arguments:  # it may be named without what it requires
        parser.parse_args(arguments)


@pytest.fixture
def in_a_clone(minilm_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle and the head that the examples name are where they name them."""
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "all-MiniLM-L6-v2").symlink_to(minilm_bundle)
    spec = Engine.load(minilm_bundle).spec
    write_head(random_head(spec, task="urgency"), tmp_path / "heads" / "urgency.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def examples_of(document: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    found: list[str] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return found


def run_as_shown(example: str, names: dict[str, Any]) -> int:
    """Runs an example; `expression  # value` must have that value. Returns how many there were."""
    compared = 0
    for statement in ast.parse(example).body:
        code = ast.get_source_segment(example, statement)
        assert code is not None
        comment = example.splitlines()[statement.end_lineno - 1].partition("  # ")[2]
        if not isinstance(statement, ast.Expr):
            exec(code, names)
            continue
        got = eval(code, names)
        try:
            expected = ast.literal_eval(comment)
        except (SyntaxError, ValueError):  # words
            continue
        assert got == expected, code
        compared += 1
    return compared


def test_the_python_example_runs(in_a_clone: Path) -> None:
    (example,) = examples_of("README.md")
    names: dict[str, Any] = {}
    assert run_as_shown(example, names) == 2
    assert names["features"].codes.shape[1] == 48
    answer = names["answers"]["urgency"]
    assert answer.probabilities.dtype == "float32"
    assert answer.probabilities.shape == (len(names["texts"]), len(answer.labels))


def test_the_quickstart_runs(in_a_clone: Path) -> None:
    names: dict[str, Any] = {}
    assert sum(run_as_shown(example, names) for example in examples_of("docs/quickstart.md")) == 14


def test_embeddings_are_as_shown(in_a_clone: Path) -> None:
    first, *_ = examples_of("docs/embeddings.md")
    assert run_as_shown(first, {}) == 4


def test_a_head_is_trained_as_shown(in_a_clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On fewer background texts than a user has: encoding all of them takes most of the time."""
    few = default_background().read_text(encoding="utf-8").splitlines()[:400]
    Path("background.txt").write_text("\n".join(few), encoding="utf-8")
    place = "bitheads.training.heads.train_head.default_background"
    monkeypatch.setattr(place, lambda: Path("background.txt"))
    rows = [f"{'now' if i % 2 else 'later'}\ttext {i}" for i in range(16)]
    for name in ("train.tsv", "dev.tsv"):
        Path(name).write_text("\n".join(["label\ttext", *rows]), encoding="utf-8")
    for example in examples_of("docs/tasks.md"):
        Path("heads/urgency.safetensors").unlink()
        names: dict[str, Any] = {}
        run_as_shown(example, names)
        assert names["engine"].tasks["urgency"].labels == ("later", "now")


def test_the_first_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_the_cpp_examples_are_those_that_are_built() -> None:
    """One of them whole, and what matters of the others."""
    page = (ROOT / "docs/cpp.md").read_text(encoding="utf-8")
    compares, embeds, shares, calls, chooses = re.findall(r"```cpp\n(.*?)```", page, re.DOTALL)
    examples = ROOT / "host" / "examples"
    assert embeds == (examples / "embed.cpp").read_text(encoding="utf-8")
    parts = {"compare": [compares], "many_callers": [shares, calls], "on_a_gpu": [chooses]}
    for name, part in ((name, part) for name, found in parts.items() for part in found):
        indented = textwrap.indent(part, "    ")
        assert indented in (examples / f"{name}.cpp").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "document", [*DOCUMENTS, "ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md", "docs/table3.md"]
)
def test_links_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / document).parent / target).exists(), target


def test_the_reference_has_every_public_name() -> None:
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^::: bitheads(?:\.\w+)*\.(\w+)$", page, re.MULTILINE))
    named_by_errors = {name for name in bitheads.__all__ if hasattr(errors, name)}
    assert {*bitheads.__all__} - named_by_errors | {*store.__all__} == shown - {"errors"}


def test_every_environment_variable_is_described() -> None:
    page = (ROOT / "docs/environment.md").read_text(encoding="utf-8")
    read = set()
    for top in ("engine", "export", "training", "host/src", "kernels/cpu"):
        for path in (ROOT / top).rglob("*.*"):
            if path.suffix in (".py", ".cpp"):
                text = path.read_text(encoding="utf-8")
                read |= set(re.findall(r"""(?<=")BITHEADS_[A-Z_]+(?=")""", text))
    assert {"BITHEADS_CACHE", "BITHEADS_KERNEL_LEVEL"} < read
    for name in read:
        assert f"`{name}" in page, name


@pytest.mark.parametrize("document", DOCUMENTS)
def test_extras_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = project.split("[project.optional-dependencies]")[1].split("[tool.")[0]
    extras = set(re.findall(r"^(\w+) = \[", table, re.MULTILINE))
    for named in re.findall(r"(?:bitheads|\.)\[([\w,]+)\]", text):
        assert set(named.split(",")) <= extras, named


def test_files_and_options_of_the_gpu_document_exist() -> None:
    text = (ROOT / "docs/gpu.md").read_text(encoding="utf-8")
    made = {"build/gpu-report.md", "benchmarks/results/gpu.json"}
    for path in re.findall(r"`((?:tests|engine|benchmarks|build)/[\w./-]+)`", text):
        assert path in made or (ROOT / path).exists(), path
    usage = importlib.import_module("benchmarks.gpu.options")
    parser = argparse.ArgumentParser()
    usage.add_options(parser)
    shown = text.split("Its options:")[1].split("\n\n")[0]
    for option in re.findall(r"--[a-z-]+", shown):
        assert option in parser.format_help(), option
    targets = re.findall(
        r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    for target in re.findall(r"(?:^    |`)make ([\w-]+)", text, re.MULTILINE):
        assert target in targets, target
