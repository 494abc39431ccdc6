"""What the documents tell people to type works."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest
from random_heads import random_head

from benchmarks.encoder.worker import COMMANDS
from bitheads import Engine
from bitheads.engine.heads.head_file import write_head

ROOT = Path(__file__).parent.parent
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/cpp.md",
    "docs/gpu.md",
    "docs/serving.md",
    "docs/store.md",
    "docs/training.md",
)
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
            found.append((COMMANDS[name].module, shlex.split(arguments, comments=True)))
        for module, arguments in MODULE.findall(text):
            name = module if module == "benchmarks" else f"bitheads.{module}"
            found.append((name, shlex.split(arguments, comments=True)))
    return found


def test_there_are_commands() -> None:
    assert len(commands()) >= 15


@pytest.mark.parametrize(("module", "arguments"), commands(), ids=lambda value: str(value)[:60])
def test_commands_parse(module: str, arguments: list[str]) -> None:
    parser = importlib.import_module(PARSERS.get(module, module))._parser()
    if arguments and "--help" not in arguments:  # it may be named without what it requires
        parser.parse_args(arguments)


def test_the_python_example_runs(
    minilm_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "all-MiniLM-L6-v2").symlink_to(minilm_bundle)
    spec = Engine.load(minilm_bundle).spec
    write_head(random_head(spec, task="urgency"), tmp_path / "heads" / "urgency.safetensors")
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    names = {"texts": ["one text", "another one"]}
    exec(compile(example, "README.md", "exec"), names)
    answers = names["answers"]
    assert answers["sentiment"].top == ("pos", "neg")
    assert names["features"].codes.shape[1] == 48


def test_the_cpp_example_is_the_one_that_is_built() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```cpp\n(.*?)```", readme, re.DOTALL)
    assert example == (ROOT / "host/examples/embed.cpp").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", [*DOCUMENTS, "ARCHITECTURE.md", "CHANGELOG.md"])
def test_links_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / document).parent / target).exists(), target


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
