"""What it is for both hosts to give the same answer."""

from __future__ import annotations

import numpy as np

from benchmarks.contenders.host_library import HostPrediction
from bitheads import Prediction
from bitheads.engine.kinds import KINDS

TOLERANCE = 1e-6
"""Of what is computed of the logits; values are larger, and so is theirs."""


def assert_same_answer(got: HostPrediction, expected: Prediction) -> None:
    """Logits, and what decisions are made of, to the bit; the rest but for its last bits."""
    assert (got.kind, got.labels) == (expected.kind, expected.labels)
    assert_same_bits(got.logits, expected.logits)
    assert_same_bits(got.reject_logits, expected.reject_logits)
    assert got.top == expected.top
    np.testing.assert_array_equal(got.has_label, expected.has_label)
    np.testing.assert_array_equal(got.accepted, expected.accepted)
    assert_close(got.probabilities, expected.probabilities)
    assert_same_spans(got, expected)
    if KINDS[expected.kind].is_one_label:
        # What abstaining compares with.
        rows = np.arange(len(got.best))
        assert_same_bits(got.probabilities[rows, got.best], expected.probability)
    assert_close(got.out_of_domain, expected.out_of_domain)
    assert_close(got.values, expected.values, rtol=TOLERANCE)


def assert_same_spans(got: HostPrediction, expected: Prediction) -> None:
    """To the bit, as both ask the kernels. Also what each host knows of places: C++ tells bytes,
    too."""
    words = expected.words
    if words is None:
        assert got.spans is got.truncated_at is got.truncated_at_byte is got.word_offsets is None
        return
    assert got.spans is not None
    assert got.truncated_at is not None
    np.testing.assert_array_equal(got.word_offsets, words.offsets)
    np.testing.assert_array_equal(got.truncated_at, words.truncated_at)
    assert_same_bits(got.probabilities, expected.probabilities)
    of_text = [[(s.start, s.end, s.label) for s in spans] for spans in got.spans]
    assert of_text == [[(s.start, s.end, s.label) for s in spans] for spans in expected.spans]
    for ours, theirs in zip(got.spans, expected.spans, strict=True):
        for ours_span, span in zip(ours, theirs, strict=True):
            assert ours_span.probability == span.probability


def assert_same_bits(got: np.ndarray | None, expected: np.ndarray | None) -> None:
    assert (got is None) == (expected is None)
    if got is not None and expected is not None:
        assert (got.dtype, got.shape) == (np.float32, expected.shape)
        assert got.tobytes() == np.ascontiguousarray(expected).tobytes()


def assert_close(got: np.ndarray | None, expected: np.ndarray | None, rtol: float = 0) -> None:
    assert (got is None) == (expected is None)
    if got is not None and expected is not None:
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=TOLERANCE, strict=True)
