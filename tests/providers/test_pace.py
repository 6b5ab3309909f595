"""How often an account is asked once AWS throttles, on a clock of its own."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.pace import FIRST, LEAST, Pace


class Bucket:
    """AWS's side: so many calls a second, and a few saved up."""

    def __init__(self, rate: float, saved: float = 1.0) -> None:
        self.rate = rate
        self.most = self.level = saved
        self.at = 0.0

    def takes(self, now: float) -> bool:
        self.level = min(self.most, self.level + max(0.0, now - self.at) * self.rate)
        self.at = max(self.at, now)
        if self.level < 1:
            return False
        self.level -= 1
        return True


class World:
    """One account, its pace and its bucket, in a time that passes only by waiting."""

    def __init__(self, rate: float, saved: float = 1.0) -> None:
        self.now = 0.0
        self.bucket = Bucket(rate, saved)
        self.pace = Pace(now=lambda: self.now, sleep=self.wait)
        self.refused = 0

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def ask(self, *, wait: bool = True) -> bool:
        turn = self.pace.turn(wait=wait)
        if self.bucket.takes(self.now):
            self.pace.answered()
            return True
        self.pace.throttled(turn)
        self.refused += 1
        return False


def test_without_throttling_nothing_waits() -> None:
    world = World(rate=1e9, saved=1e9)
    assert all(world.ask() for _ in range(1000))
    assert (world.now, world.pace.calls_a_second) == (0.0, None)


@given(rate=st.floats(0.5, 20), saved=st.integers(1, 20))
def test_with_it_most_calls_are_let_through_and_little_time_is_lost(rate: float, saved: int) -> None:
    world = World(rate, saved)
    asked = let_through = 0
    while let_through < 300:
        asked += 1
        let_through += world.ask()
    assert world.refused / asked < 0.2
    assert world.now < 2.5 * 300 / rate + 20


def test_a_burst_that_is_throttled_slows_only_once() -> None:
    world = World(rate=1)
    turns = [world.pace.turn() for _ in range(16)]
    world.now += 0.1
    for turn in turns:
        world.pace.throttled(turn)
    assert world.pace.calls_a_second == FIRST


def test_however_much_is_throttled_it_goes_on() -> None:
    world = World(rate=0, saved=0)
    assert not any(world.ask() for _ in range(50))
    assert world.pace.calls_a_second == LEAST
    assert world.now < 50 / LEAST + 1


def test_when_aws_throttles_no_more_the_limit_is_forgotten() -> None:
    world = World(rate=1)
    for _ in range(50):
        world.ask()
    assert world.pace.calls_a_second is not None
    world.bucket = Bucket(rate=1000, saved=1000)
    for _ in range(200):
        assert world.ask()
    assert world.pace.calls_a_second is None


def test_those_who_wait_get_a_turn_each() -> None:
    world = World(rate=1)
    world.pace.throttled(world.pace.turn())
    turns = []
    for _ in range(5):
        turns.append(world.pace.turn())
        world.now = 0.0  # all ask at the same instant
    assert [round(later - earlier, 6) for earlier, later in pairwise(turns)] == [1 / FIRST] * 4


@pytest.mark.parametrize("wait", [True, False])
def test_an_act_does_not_wait_behind_questions(wait: bool) -> None:
    world = World(rate=1)
    world.pace.throttled(world.pace.turn())
    for _ in range(5):
        world.pace.turn()
        world.now = 0.0
    world.pace.turn(wait=wait)
    assert (world.now > 0) is wait
