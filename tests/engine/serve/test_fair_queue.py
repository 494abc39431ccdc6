"""The order in which waiting texts are encoded."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bitheads.engine.serve.fair_queue import FairQueue, Row


def put(queue: FairQueue[Any], owner: Any, lengths: list[int], client: Any = None) -> None:
    """Texts that are not padded."""
    queue.put(owner, lengths, lengths, client)


def drained(queue: FairQueue[str], budget: int = 100) -> list[list[Row[str]]]:
    batches = []
    while len(queue):
        batches.append(queue.take(budget, 8))
    return batches


def test_a_short_request_is_not_behind_all_of_a_long_one() -> None:
    queue: FairQueue[str] = FairQueue()
    put(queue, "long", [20] * 1000)
    first = queue.take(100, 8)
    assert {row.owner for row in first} == {"long"}
    put(queue, "short", [20])
    later = [row.owner for _ in range(2) for row in queue.take(100, 8)]
    assert "short" in later


def test_two_long_requests_get_equal_shares() -> None:
    queue: FairQueue[str] = FairQueue()
    put(queue, "first", [10] * 400)
    put(queue, "second", [20] * 200)
    tokens = {"first": 0, "second": 0}
    for _ in range(20):
        for row in queue.take(100, 8):
            tokens[row.owner] += row.length
    # Ahead by what is looked at, not more.
    assert abs(tokens["first"] - tokens["second"]) <= 400
    assert sum(tokens.values()) >= 1900


def test_nobody_is_passed_for_good() -> None:
    """Short texts come faster than they are taken; long ones end all the same."""
    queue: FairQueue[str] = FairQueue()
    for i in range(100):
        put(queue, f"first-{i}", [10])
    put(queue, "long text", [90])
    put(queue, "long request", [10] * 50)
    left = {"long text": 1, "long request": 50}
    for i in range(200):
        for j in range(20):
            put(queue, f"later-{i}-{j}", [10])
        for row in queue.take(100, 8):
            if row.owner in left:
                left[row.owner] -= 1
        if i == 30:
            assert left["long text"] == 0
    assert left["long request"] == 0


def test_clients_have_equal_shares_whatever_they_have_waiting() -> None:
    """In requests of any size and number."""
    queue: FairQueue[str] = FairQueue()
    for i in range(50):
        put(queue, f"greedy-{i}", [10] * 100, "greedy")
    put(queue, "modest", [10] * 100, "modest")
    tokens = {"greedy": 0, "modest": 0}
    for _ in range(60):
        for row in queue.take(100, 8):
            tokens[row.owner.split("-")[0]] += row.length
    assert abs(tokens["greedy"] - tokens["modest"]) <= 400
    assert tokens["modest"] > 500


def test_a_client_that_comes_anew_waits_for_no_backlog() -> None:
    """Also after others had the encoder to themselves, and however often it comes."""
    queue: FairQueue[str] = FairQueue()
    for i in range(20):
        put(queue, f"greedy-{i}", [90] * 100, "greedy")
    for i in range(50):
        queue.take(100, 8)
        put(queue, f"one-{i}", [5], "other")
        owners = [row.owner for _ in range(2) for row in queue.take(100, 8)]
        assert f"one-{i}" in owners


def test_batches_are_small_while_a_large_request_has_company() -> None:
    """And as large as may be as soon as it has not."""
    queue: FairQueue[str] = FairQueue()
    put(queue, "greedy", [10] * 10_000, "greedy")
    assert len(queue.take(100, 8)) == 10
    put(queue, "one", [10], "other")
    sizes = [len(queue.take(100, 8)) for _ in range(20)]
    assert sizes == [2] * 20
    while len(queue) > 100:
        queue.take(100, 8)
    assert len(queue.take(100, 8)) == 10


def test_many_clients_who_ask_little_have_large_batches() -> None:
    queue: FairQueue[str] = FairQueue()
    for i in range(100):
        put(queue, f"one-{i}", [10], f"client-{i}")
    assert len(queue.take(100, 8)) == 10


def test_clients_are_forgotten() -> None:
    queue: FairQueue[str] = FairQueue()
    put(queue, "greedy", [100] * 1000, "greedy")
    for i in range(300):
        put(queue, f"one-{i}", [10], f"client-{i}")
    while len(queue) > 1:
        queue.take(100, 8)
    assert len(queue._clients) < 10
    queue.take(100, 8)
    assert not queue._clients


def test_texts_of_like_length_go_together() -> None:
    queue: FairQueue[str] = FairQueue()
    for i in range(10):
        put(queue, f"short-{i}", [5])
        put(queue, f"long-{i}", [50])
    batches = drained(queue, budget=200)
    for batch in batches:
        assert len({row.length for row in batch}) == 1
        assert len(batch) * max(row.length for row in batch) <= 200


def test_the_one_whose_turn_it_is_is_always_taken() -> None:
    queue: FairQueue[str] = FairQueue()
    put(queue, "odd", [70])
    for i in range(30):
        put(queue, f"even-{i}", [10])
    assert "odd" in {row.owner for row in queue.take(100, 8)}


def test_a_request_is_forgotten() -> None:
    queue: FairQueue[str] = FairQueue()
    a, b = "a", "b"
    put(queue, a, [3, 4, 5])
    put(queue, b, [6])
    assert sorted(row.length for row in queue.drop(a)) == [3, 4, 5]
    assert queue.drop(a) == []
    assert [row.owner for batch in drained(queue) for row in batch] == ["b"]


@given(
    st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=20), min_size=1, max_size=10),
    st.integers(1, 400),
    st.randoms(),
)
def test_every_text_is_taken_once(requests: list[list[int]], budget: int, draw: object) -> None:
    queue: FairQueue[int] = FairQueue()
    taken: list[tuple[int, int, int]] = []

    def take() -> None:
        batch = queue.take(budget, 8)
        longest = max(row.length for row in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
        taken.extend((row.owner, row.index, row.length) for row in batch)

    for owner, lengths in enumerate(requests):
        put(queue, owner, lengths)
        if draw.random() < 0.5:  # type: ignore[attr-defined]
            take()
    while len(queue):
        take()
    expected = [(o, i, length) for o, ls in enumerate(requests) for i, length in enumerate(ls)]
    assert sorted(taken) == expected


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(1, 50), min_size=1, max_size=12),
            st.sampled_from("ab"),
            st.sampled_from(["", "take", "drop"]),
        ),
        min_size=1,
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_what_is_removed_is_not_taken_and_all_else_is(
    requests: list[tuple[list[int], str, str]], draw: Any
) -> None:
    queue: FairQueue[int] = FairQueue()
    waiting: dict[Row[int], str] = {}

    def take() -> None:
        for row in queue.take(60, 8):
            del waiting[row]

    for owner, (lengths, client, then) in enumerate(requests):
        waiting |= dict.fromkeys(queue.put(owner, lengths, lengths, client), client)
        for row in draw.sample([*waiting], draw.randint(0, len(waiting) // 2)):
            queue.remove(row, waiting.pop(row))
        if then == "drop":
            dropped = queue.drop(whose := draw.randint(0, owner))
            assert {*dropped} == {row for row in waiting if row.owner == whose}
            for row in dropped:
                del waiting[row]
        assert len(queue) == len(waiting)
        if then == "take" and waiting:
            take()
    while len(queue):
        take()
    assert not waiting
    assert not queue._removed
