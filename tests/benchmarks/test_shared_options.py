"""The command that a result is stored under."""

from __future__ import annotations

import pytest

from benchmarks.__main__ import _parser
from benchmarks.options import command


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("backfill --texts 1234567", "backfill --texts 1234567"),
        ("encoder --shapes", "encoder --shapes"),
        ("encoder --peers-python /x/bin/python", "encoder --peers-python PYTHON"),
        ("memory --data /x --quick --bundle /y", "memory --quick --data DIR"),
        ("overload --minutes 5.0", "overload --minutes 5"),
        ("overload --minutes 0.25 --threads 2", "overload --minutes 0.25"),
        ("tasks --plot /x/y.png", "tasks --plot FILE"),
        ("tasks --plot docs/tasks.png", "tasks"),
    ],
)
def test_options_that_change_what_is_measured(typed: str, stored: str) -> None:
    """Paths are this machine's own, and defaults go without saying."""
    words = typed.split()
    found = command(words[0], _parser().parse_args(words))
    assert found == f"python -m benchmarks {stored}"
