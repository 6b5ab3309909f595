"""Asking side by side: what hangs is given up, what is given up is not asked twice, and nobody else waits for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from threading import Barrier, Event, Lock

import pytest

from providers.errors import Forbidden, ProviderError, Unreachable
from providers.questions import Questions

Key = tuple[str, str]
SHORT, LONG = 0.1, 30.0
LATE = re.compile(r"AWS did not answer within [\d.]+ s; asked since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC")


@pytest.fixture
def stuck() -> Iterator[Event]:
    """Lets go of what hangs on it, at the latest when the test is over."""
    event = Event()
    yield event
    event.set()


def questions(patience: float = LONG, at_once: int = 4) -> Questions[Key]:
    return Questions("AWS", patience=patience, at_once=at_once)


def hanging(event: Event) -> Callable[[], str]:
    def wait() -> str:
        event.wait(LONG)
        return "at last"

    return wait


def test_answers_come_in_the_order_of_the_questions() -> None:
    asked = {("a", str(number)): lambda number=number: number for number in range(20)}
    assert list(questions().answers(asked).items()) == [(("a", str(number)), number) for number in range(20)]


def test_nothing_asked_is_nothing_answered() -> None:
    assert questions().answers({}) == {}


def test_one_that_fails_sinks_no_other() -> None:
    def denied() -> str:
        raise Forbidden("no", permission="ec2:DescribeInstances")

    found = questions().answers({("a", "1"): denied, ("a", "2"): lambda: "yes"})
    assert isinstance(found["a", "1"], Forbidden)
    assert found["a", "2"] == "yes"


def test_a_mistake_of_ours_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        questions().answers({("a", "1"): lambda: 1 // 0})


def test_accounts_are_asked_side_by_side_and_each_only_so_much_at_once() -> None:
    together = Barrier(6)  # two of each account: fewer would never meet here
    lock, now, most = Lock(), {"a": 0, "b": 0, "c": 0}, {"a": 0, "b": 0, "c": 0}

    def ask(account: str) -> int:
        with lock:
            now[account] += 1
            most[account] = max(most[account], now[account])
        together.wait(LONG)
        with lock:
            now[account] -= 1
        return 1

    asked = {(account, str(number)): (lambda account=account: ask(account)) for account in "abc" for number in range(4)}
    assert set(questions(at_once=2).answers(asked).values()) == {1}
    assert most == {"a": 2, "b": 2, "c": 2}


def test_one_that_hangs_is_late_and_the_others_are_in_time(stuck: Event) -> None:
    found = questions(1.0).answers({("a", "1"): hanging(stuck), ("a", "2"): lambda: "yes", ("b", "1"): lambda: "yes"})
    assert (found["a", "2"], found["b", "1"]) == ("yes", "yes")
    late = found["a", "1"]
    assert isinstance(late, Unreachable)
    assert LATE.fullmatch(late.sentence)


def test_those_that_wait_behind_it_are_not_asked_any_more(stuck: Event) -> None:
    asked: list[str] = []
    found = questions(SHORT, at_once=1).answers({("a", "1"): hanging(stuck), ("a", "2"): lambda: asked.append("2")})
    assert isinstance(found["a", "2"], ProviderError)
    assert found["a", "2"].sentence.endswith("other questions had to be waited for first")
    stuck.set()
    assert not asked


def test_while_it_hangs_it_is_not_asked_again_and_not_waited_for(stuck: Event) -> None:
    patient = questions(SHORT)
    first = patient.answers({("a", "1"): hanging(stuck)})["a", "1"]
    asked: list[str] = []
    patient._patience = LONG  # whoever waited now would be noticed
    again = patient.answers({("a", "1"): lambda: asked.append("again"), ("b", "1"): lambda: "yes"})
    assert not asked
    assert again["b", "1"] == "yes"
    assert isinstance(first, Unreachable)
    assert isinstance(again["a", "1"], Unreachable)
    assert re.findall("since.*", again["a", "1"].sentence) == re.findall("since.*", first.sentence)


def test_while_it_hangs_nothing_is_asked_of_its_region_and_all_of_the_others(stuck: Event) -> None:
    patient: Questions[tuple[str, ...]] = Questions("AWS", patience=SHORT, at_once=4)
    patient.answers({("a", "here"): hanging(stuck)})
    patient._patience = LONG
    asked = [("a", "here", "i-1"), ("a", "here", "i-2"), ("a", "there", "i-3"), ("b", "here", "i-4")]
    found = patient.answers(dict.fromkeys(asked, lambda: "yes"))
    assert [answer == "yes" for answer in found.values()] == [False, False, True, True]


def test_when_it_ended_it_is_asked_anew_and_its_old_answer_is_forgotten(stuck: Event) -> None:
    patient = questions(SHORT)
    patient.answers({("a", "1"): hanging(stuck)})
    stuck.set()
    patient._patience = LONG
    found: object = None
    while found != "new":  # the thread needs a moment to notice
        found = patient.answers({("a", "1"): lambda: "new"})["a", "1"]
        assert found == "new" or isinstance(found, Unreachable)


def test_what_somebody_else_is_just_asking_is_no_hanging_question() -> None:
    """A look and a re-check may ask the same thing at the same time."""
    patient = questions()
    found = patient.answers({("a", "1"): lambda: patient.answers({("a", "1"): lambda: "inner"})["a", "1"]})
    assert found == {("a", "1"): "inner"}


def test_those_that_waited_longest_come_first() -> None:
    patient = questions(at_once=1)
    order: list[str] = []

    def ask(name: str) -> Callable[[], None]:
        return lambda: order.append(name)

    patient.answers({("a", "2"): ask("2")})
    patient.answers({("a", "1"): ask("1")})
    patient.answers({("a", "1"): ask("1"), ("a", "2"): ask("2"), ("a", "3"): ask("3")})
    assert order == ["2", "1", "3", "2", "1"]
