"""The pages' tables, generated from stored results, so that no number is typed by hand."""

from __future__ import annotations

import re

from benchmarks import ROOT, record
from benchmarks.pages.block import Block
from benchmarks.routines import ROUTINES, Routine
from bitheads.engine.errors import InputError

BLOCK = r"(<!-- table: {name} -->\n).*?(<!-- end -->)"


def update(check: bool) -> None:
    """Writes every table between its markers, or with `check` only compares.

    Raises InputError if a table is not what the stored results say.
    """
    pages: dict[str, str] = {}
    for routine in ROUTINES:
        for block in routine.blocks:
            page = pages.get(block.page) or (ROOT / block.page).read_text(encoding="utf-8")
            pages[block.page] = _filled(page, block, shown(routine, block))
    for name, text in pages.items():
        path = ROOT / name
        if text == path.read_text(encoding="utf-8"):
            continue
        if check:
            raise InputError(
                f"{path.name}: its tables differ from benchmarks/results. "
                "Type: python -m benchmarks tables"
            )
        path.write_text(text, encoding="utf-8")


def shown(routine: Routine, block: Block) -> str:
    """What a block is to say: its table, or what to type where the routine never ran.

    Raises FileNotFoundError if there is no stored result of another name, which a block names.
    """
    if block.result is None and not record.exists(routine.name):
        return routine.placeholder
    return block.make(record.read(block.result or routine.name))


def _filled(page: str, block: Block, table: str) -> str:
    pattern = re.compile(BLOCK.format(name=block.name), re.DOTALL)
    filled, count = pattern.subn(lambda match: f"{match[1]}{table}\n{match[2]}", page)
    if not count:
        raise InputError(f"{block.page}: no block <!-- table: {block.name} --> ... <!-- end -->.")
    return filled
