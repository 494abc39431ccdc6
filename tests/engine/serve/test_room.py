"""Who is refused: by what waits already, whose it is, and how long it takes."""

from __future__ import annotations

import pytest

from bitheads.engine.serve.room import ENOUGH_TOKENS, QueueFull, Room, TooLong


def room(max_tokens: int = 1000, max_wait_s: float = 10.0, tokens_per_s: float = 100.0) -> Room:
    """In which so many tokens a second were measured."""
    made = Room(max_tokens, max_wait_s, 2 * max_wait_s)
    for _ in range(ENOUGH_TOKENS // 512):
        made.measured(512, 512 / tokens_per_s)
    return made


def is_taken(there: Room, client: str, tokens: int) -> bool:
    try:
        there.check(client, tokens)
    except QueueFull as full:
        return full.retry_after_s <= 0  # which it never is
    return True


def test_what_cannot_end_in_time_is_refused_whatever_is_there() -> None:
    there = room()
    there.check("a", 2000)  # more than the queue's tokens, but alone
    with pytest.raises(TooLong) as long:
        there.check("a", 2001)
    assert long.value.needed_s == pytest.approx(20.01)


def test_nothing_is_too_long_before_enough_was_measured() -> None:
    there = Room(1000, 10, 20)
    there.measured(40, 3.0)  # a first call
    there.check("a", 10**6)


def test_small_calls_say_little_of_the_time_of_large_ones() -> None:
    there = room()
    for _ in range(100):
        there.measured(40, 4.0)  # a tenth of the speed
    assert there.seconds(1000) < 20


@pytest.mark.parametrize("neighbour", ["another", "the same"])
def test_the_largest_request_leaves_room_for_small_ones(neighbour: str) -> None:
    """Of others, and of its own client."""
    there = room()
    there.add("the same", 2000)
    assert not is_taken(there, "the same", 600)
    for _ in range(30):
        assert is_taken(there, neighbour, 20)
        there.add(neighbour, 20)
    for tokens in (2000, 900):
        assert not is_taken(there, neighbour, tokens)


def test_of_like_requests_no_more_wait_than_the_queue_holds() -> None:
    there = room(max_wait_s=1000.0)
    count = 0
    while is_taken(there, f"client {count % 7}", 20):
        there.add(f"client {count % 7}", 20)
        count += 1
    assert count == 50


def test_a_client_with_much_waits_for_itself_not_others_for_it() -> None:
    there = room()
    for _ in range(45):
        there.add("busy", 20)
    assert is_taken(there, "busy", 100)
    assert not is_taken(there, "busy", 101)
    assert is_taken(there, "other", 450)  # of the busy one 450 go beside it
    assert not is_taken(there, "other", 501)


def test_small_requests_of_a_client_wait_for_each_other_whole() -> None:
    """However small the next one is: else more would wait than the queue is to hold."""
    there = room(max_tokens=6400, max_wait_s=1000.0)
    count = 0
    while is_taken(there, "a", 1):
        there.add("a", 100 if count % 2 else 10)
        count += 1
    assert 6300 <= there.tokens <= 6500


def test_time_is_bounded_as_tokens_are() -> None:
    there = room(max_tokens=10**6, max_wait_s=10.0)
    for _ in range(9):
        there.add("a", 100)
    assert is_taken(there, "a", 100)
    assert not is_taken(there, "a", 101)


def test_nothing_is_left_of_what_has_ended() -> None:
    there = room()
    there.add("a", 30)
    there.add("a", 20)
    there.encoded("a", 30)
    there.end("a")
    there.end("a")  # cancelled, while its tokens are encoded
    assert there.tokens == 20
    there.add("a", 5)
    there.encoded("a", 20)
    there.encoded("a", 5)
    there.end("a")
    assert there.tokens == 0
    assert not there._clients
