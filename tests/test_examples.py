"""The scripts of examples/ run as a user runs them, and are short."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from marks import all_but_long

EXAMPLES = Path(__file__).parent.parent / "examples"
PRINTED = {
    "add_a_task": [r"accuracy on dev: (0\.[6-9]|1\.0)", r"come at once: urgent", r"font .*: later"],
    "keep_features": [r"^4 texts, \d+ bytes$", r"^a1 pos$", r"^a2 neg$", r"^\{'pos': \d"],
    "pipeline": [r"^sentiment: neg 200$", r"^sentiment: pos 100$", r"^topic: Business 100$"],
    "predict": [r"^    sentiment: pos$", r"^    duplicate: ", r"^\d+ tokens, "],
    "serve_and_ask": [
        r"^What a lovely film\.: sentiment pos$",
        r"^Shares fell .*: topic Business$",
        r"^\[\['admiration'",
    ],
    "split_long_texts": [
        r"^cut: pos .* windows: 1, truncated: 1$",
        r"^split: neg .* windows: [2-9], truncated: 0$",
    ],
    "stream_a_file": [r"^3000 texts: \{'pos': \d+, 'neg': \d+\}$"],
}
"""Example -> what it must print, as regular expressions."""


def test_these_are_all() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(PRINTED)
    listed = re.findall(r"\((\w+)\.py\)", (EXAMPLES / "README.md").read_text(encoding="utf-8"))
    assert set(listed) == set(PRINTED)


@pytest.mark.parametrize("name", PRINTED)
def test_it_is_short_and_begins_with_one_sentence(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    said = ast.get_docstring(ast.parse(text))
    assert said is not None
    assert "\n" not in said
    assert said.endswith(".")


LONG = {"add_a_task", "pipeline"}
"""The second runs in a bucket in tests/ray."""


@pytest.mark.parametrize("name", all_but_long(PRINTED, *set(PRINTED) - LONG))
def test_it_runs(name: str, minilm_bundle: Path, tmp_path: Path) -> None:
    """In an empty folder that stays empty, with warnings as errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / f"{name}.py", minilm_bundle],
        cwd=tmp_path,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for pattern in PRINTED[name]:
        assert re.search(pattern, done.stdout, re.MULTILINE), done.stdout
    assert list(tmp_path.iterdir()) == []


def test_predict_takes_the_bundle_that_make_demo_makes(minilm_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "all-MiniLM-L6-v2").symlink_to(minilm_bundle)
    done = subprocess.run(
        [sys.executable, EXAMPLES / "predict.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
