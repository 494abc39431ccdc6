"""Stores what came of `make test-long`, from the folder with a JUnit file of each part."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from benchmarks import record


def outcome(path: Path) -> dict[str, Any]:
    """Counts of a part's tests, and its seconds."""
    suites = list(ElementTree.parse(path).getroot().iter("testsuite"))
    count = {
        name: sum(int(suite.attrib[name]) for suite in suites)
        for name in ("tests", "failures", "errors", "skipped")
    }
    return {**count, "seconds": round(sum(float(suite.attrib["time"]) for suite in suites), 1)}


def main(folder: Path) -> None:
    """Writes benchmarks/results/long_tests.json."""
    parts = {path.stem: outcome(path) for path in sorted(folder.glob("*.xml"))}
    record.write("long_tests", "make test-long", {"parts": parts})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
