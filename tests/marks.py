"""Which of a test's cases are for `make test-long` only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def long(*cases: Any) -> list[Any]:
    """Cases of a parametrized test that only `make test-long` runs."""
    return [pytest.param(case, marks=pytest.mark.long) for case in cases]


def all_but_long(cases: Iterable[Any], *kept: Any) -> list[Any]:
    """All cases in their order; those that are not `kept` are long ones."""
    return [case if case in kept else long(case)[0] for case in cases]
