"""A head answers texts of the form that it was made for: single texts, or pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_host_errors import refused

from benchmarks.contenders.host_library import HostEngine

SINGLE, PAIR = "What a lovely film.", ("What a lovely film.", "How lovely.")


@pytest.fixture(params=["predict", "predict_encoded"])
def ask(request: pytest.FixtureRequest, host_engine: HostEngine) -> Callable[..., Any]:
    """Texts and answers in one call, or from features that the library has made."""
    return getattr(host_engine, request.param)  # type: ignore[no-any-return]


def test_the_heads_of_their_form_answer(ask: Callable[..., Any]) -> None:
    assert set(ask([SINGLE, SINGLE])) == {"attends", "averages", "last"}
    assert set(ask([PAIR])) == {"pairs", "first"}


def test_a_task_of_the_other_form_is_an_error(ask: Callable[..., Any]) -> None:
    with refused("invalid_input", "task 'pairs'", "answers pairs", "text 0 is a single text"):
        ask([SINGLE], ["pairs"])
    with refused("invalid_input", "task 'averages'", "answers single texts", "text 1 is a pair"):
        ask([SINGLE, PAIR], ["averages"])
    with refused("unknown_task", "'nothing'"):
        ask([SINGLE], ["nothing"])


def test_both_forms_in_one_call_are_an_error(ask: Callable[..., Any]) -> None:
    with refused("invalid_input", "text 0 is a single text, text 2 is a pair", "call of its own"):
        ask([SINGLE, SINGLE, PAIR])


def test_of_codes_from_elsewhere_the_forms_are_not_known(host_engine: HostEngine) -> None:
    features = host_engine.encode([SINGLE, PAIR])
    answers = host_engine.predict_features(features.codes, features.offsets)
    assert set(answers) == set(host_engine.tasks)
    expected = host_engine.predict([SINGLE])["attends"].logits[0]
    np.testing.assert_array_equal(answers["attends"].logits[0], expected)
