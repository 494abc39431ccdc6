"""What /openapi.json says of every route, against what the server does: by schemathesis.

For more: SCHEMA_EXAMPLES=500 python -m pytest tests/engine/serve/test_description.py
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ADMIN_KEY, running
from hypothesis import HealthCheck, given, settings

schemathesis = pytest.importorskip("schemathesis", reason="it needs Python 3.11")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")

EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", "5"))
CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def client(kinds_bundle: Path) -> Iterator[httpx.Client]:
    """Of a server with heads of every kind."""
    with running(kinds_bundle) as (client, _):
        yield client


def test_every_answer_is_as_described(client: httpx.Client) -> None:
    description = schemathesis.openapi.from_url(str(client.base_url.join("/openapi.json")))
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    operations = [found.ok() for found in description.get_all_operations()]
    assert len(operations) > 15
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=[*HealthCheck],
        )
        def check(case: Any) -> None:
            case.call_and_validate(checks=CHECKS, headers=headers)

        check()
