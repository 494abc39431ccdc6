"""docs/security.md says of every limit what it protects, and of every quiet library how."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from bitheads.engine.jobs.ray_cluster import USAGE_STATISTICS
from bitheads.engine.process.quiet_import import OPENVINO_TELEMETRY, QUIET
from bitheads.engine.serve.settings import Settings, flag
from bitheads.engine.serve.work import OTHER_VALUES, VALUES_PER_TEXT

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.partition(f"## {title}")[2].partition("\n## ")[0]


def test_every_limit_is_there_and_no_other() -> None:
    said = re.findall(r"`(--[a-z-]+)`", section("What each limit of the server protects"))
    options = {f.name: flag(f.name) for f in fields(Settings)}
    limits = {
        shown
        for name, shown in options.items()
        if name.startswith(("max_", "grpc_max_", "cache_"))
        or name.endswith(("_s", "_keys", "_hosts", "_origins"))
    }
    assert limits == {*said}
    assert f"{VALUES_PER_TEXT} per text and {OTHER_VALUES:,}" in PAGE


def test_what_keeps_libraries_quiet() -> None:
    said = section("Who talks to whom")
    assert f"`{OPENVINO_TELEMETRY}`" in said
    assert f"`{USAGE_STATISTICS}=0`" in said
    for variables in QUIET.values():
        for name, value in variables.items():
            assert f"`{name}={value}`" in said


def test_targets_of_make_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^ +make (\w+)", PAGE, re.MULTILINE):
        assert f"\n{target}:" in makefile


@pytest.mark.parametrize("document", ["README.md", "docs/serving.md", "SECURITY.md"])
def test_it_is_linked(document: str) -> None:
    folder = (ROOT / document).parent
    links = re.findall(r"\]\(([^)#]+)", (ROOT / document).read_text(encoding="utf-8"))
    assert ROOT / "docs" / "security.md" in [(folder / link).resolve() for link in links]
