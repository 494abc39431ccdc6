"""Parts of labelled texts: every label is learned, and nothing is in two parts."""

from __future__ import annotations

from bitheads.training.data.held_out import covering_order, rows_of, with_dev
from bitheads.training.data.labelled_texts import labelled_from

ROWS = [(f"text {i}", "often" if i % 30 else f"rare {i // 30}") for i in range(120)]


def test_the_first_rows_have_all_labels() -> None:
    data = labelled_from(ROWS)
    order = covering_order(data)
    assert sorted(order.tolist()) == list(range(120))
    assert {data.labels[row] for row in order[:5]} == set(data.labels)
    assert order.tolist() != sorted(order.tolist())
    assert covering_order(data).tolist() == order.tolist()
    sets = labelled_from([(f"text {i}", ["a"] * (i > 5) + ["b"] * (i == 9)) for i in range(40)])
    first = covering_order(sets)[:3]
    assert {label for row in first for label in sets.labels[row]} == {"a", "b"}


def test_a_dev_set_is_held_out_where_there_is_none() -> None:
    data = labelled_from(ROWS)
    parts = with_dev({"train": data, "test": data})
    assert parts["test"] is data
    train, dev = parts["train"], parts["dev"]
    assert (len(train), len(dev)) == (96, 24)
    assert sorted(train.texts + dev.texts) == sorted(data.texts)
    assert set(train.labels) == set(data.labels)
    assert len({data.sha256, train.sha256, dev.sha256}) == 3
    assert with_dev(parts) == parts


def test_rows_keep_their_places() -> None:
    data = labelled_from(ROWS, name="mine")
    some = rows_of(data, covering_order(data)[:7])
    for row in range(7):
        place = data.texts.index(some.texts[row])
        assert some.labels[row] == data.labels[place]
        assert some.place(row) == data.place(place)
