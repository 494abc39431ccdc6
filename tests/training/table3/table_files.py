"""What `bitheads table3` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def rows_of(output: Path) -> dict[tuple[str, str], dict[str, Any]]:
    table = json.loads((output / "table.json").read_text(encoding="utf-8"))
    return {(row["section"], row["name"]): row for row in table["rows"]}


def cells_of(output: Path) -> dict[str, bytes]:
    folder = output / "cells"
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.json")}


def results_of(output: Path) -> dict[str, Any]:
    """Cell -> its result, without the seconds."""
    results = {name: json.loads(content)["result"] for name, content in cells_of(output).items()}
    for result in results.values():
        result.pop("seconds", None)
    return results
