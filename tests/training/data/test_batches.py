"""Which rows are trained on together."""

from __future__ import annotations

import numpy as np
import pytest

from bitheads.training.data.batches import BUCKET_BATCHES, EndlessBatches, seed_of, shuffled_batches

LENGTHS = np.random.default_rng(0).integers(1, 100, 1000)


@pytest.mark.parametrize(("rows", "batch_size"), [(1, 8), (8, 8), (9, 8), (1000, 7)])
def test_an_epoch_has_every_row_once(rows: int, batch_size: int) -> None:
    batches = shuffled_batches(LENGTHS[:rows], batch_size, np.random.default_rng(1))
    assert sorted(np.concatenate(batches)) == list(range(rows))
    assert max(map(len, batches)) <= batch_size
    assert len(batches) == -(-rows // batch_size)


def test_batches_are_of_similar_length() -> None:
    batches = shuffled_batches(LENGTHS, 8, np.random.default_rng(1))
    spread = np.mean([np.ptp(LENGTHS[rows]) for rows in batches])
    assert spread < 3 * 100 / BUCKET_BATCHES


def test_a_batch_follows_from_its_number() -> None:
    first, second = (EndlessBatches("a", LENGTHS[:50], 8, seed=3) for _ in range(2))
    in_order = [first[number] for number in range(21)]  # three epochs of seven
    for number in (20, 0, 13, 7, 6):
        assert np.array_equal(second[number], in_order[number])
    for epoch in range(3):
        rows = np.concatenate(in_order[7 * epoch : 7 * epoch + 7])
        assert sorted(rows) == list(range(50))
    assert not np.array_equal(in_order[0], in_order[7])


def test_seeds_differ_by_name_number_and_seed() -> None:
    seeds = {seed_of(s, name, n) for s in (0, 1) for name in ("a", "b") for n in (0, 1)}
    assert len(seeds) == 8
    assert seed_of(0, "a", 1) == seed_of(0, "a", 1)
