"""Asks many questions side by side, and waits for none longer than agreed: what hangs for one account delays no other.

An error stands in the place of each answer that failed, or that is late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Condition, Lock, Thread
from time import monotonic
from typing import Generic, TypeVar

from providers.errors import ProviderError, Unreachable

K = TypeVar("K", bound=tuple[Hashable, ...])
T = TypeVar("T")
B = TypeVar("B")


class Questions(Generic[K]):
    """Questions by key, which begins with an account and a region: so many at once for each account, in threads of
    their own.

    A thread that is given up is not waited for, not even at exit, and nothing else is asked of its account and region
    before it ends. Its answer is thrown away: it may tell of a time before something that was done since.
    """

    def __init__(self, whom: str, *, patience: float, at_once: int) -> None:
        """`whom`: the cloud that is asked, as sentences name it."""
        self._whom = whom
        self._patience = patience
        self._at_once = at_once
        self._lock = Lock()
        self._hanging: dict[K, datetime] = {}
        self._answered: dict[K, float] = {}
        """When each was last answered: those that waited longest come first, so that nothing is late for ever."""

    def answers(self, questions: Mapping[K, Callable[[], T]]) -> Mapping[K, T | ProviderError]:
        """All answers, in the order of the questions. Raises what a question raises other than ProviderError."""
        with self._lock:
            places = {key[:2]: since for key, since in self._hanging.items()}
            hanging = {key: places[key[:2]] for key in questions if key[:2] in places}
            order = sorted(questions.keys() - hanging.keys(), key=lambda key: (self._answered.get(key, 0.0), repr(key)))
        asked = _Round({key: questions[key] for key in order}, ended=self._ended)
        asked.start(self._at_once)
        asked.wait(self._patience)
        with self._lock:
            answered, open_ = asked.close()
            self._hanging |= open_
            self._answered |= dict.fromkeys(answered, monotonic())
        since = {**hanging, **open_}
        return {key: answered[key]() if key in answered else self._late(since.get(key)) for key in questions}

    def _ended(self, key: K) -> None:
        """A question that had been given up came to its end."""
        with self._lock:
            self._hanging.pop(key, None)

    def _late(self, since: datetime | None) -> Unreachable:
        asked = f"asked since {since:%Y-%m-%d %H:%M:%S} UTC" if since else "other questions had to be waited for first"
        return Unreachable(f"{self._whom} did not answer within {self._patience:g} s; {asked}")


class _Round(Generic[K, T]):
    """Some questions, until they are answered or given up."""

    def __init__(self, questions: Mapping[K, Callable[[], T]], *, ended: Callable[[K], None]) -> None:
        self._questions = questions
        self._ended = ended
        self._waiting: dict[Hashable, deque[K]] = {}
        for key in questions:
            self._waiting.setdefault(key[0], deque()).append(key)
        self._open: dict[K, datetime] = {}
        self._answers: dict[K, Callable[[], T | ProviderError]] = {}
        self._closed = False
        self._changed = Condition()

    def start(self, at_once: int) -> None:
        for account, keys in self._waiting.items():
            for _ in range(min(at_once, len(keys))):
                Thread(target=self._ask, args=(account,), name=f"ask-{account}", daemon=True).start()

    def wait(self, patience: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._answers) == len(self._questions), timeout=patience)

    def close(self) -> tuple[Mapping[K, Callable[[], T | ProviderError]], Mapping[K, datetime]]:
        """What is answered, and what is still open. What has not been asked yet will not be."""
        with self._changed:
            self._closed = True
            return dict(self._answers), dict(self._open)

    def _ask(self, account: Hashable) -> None:
        for key in self._turns(account):
            answer = _outcome(self._questions[key])
            with self._changed:
                del self._open[key]
                self._answers[key] = answer
                self._changed.notify_all()
                too_late = self._closed
            if too_late:
                self._ended(key)

    def _turns(self, account: Hashable) -> Iterator[K]:
        while True:
            with self._changed:
                if self._closed or not self._waiting[account]:
                    return
                key = self._waiting[account].popleft()
                self._open[key] = datetime.now(UTC)
            yield key


def batches(items: Sequence[B], size: int) -> Iterator[Sequence[B]]:
    """What fits one question at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Whatever is not where a cloud puts it means that it is not that cloud who answers."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        raise Unreachable(f"GET {path} was answered with what cannot be read ({type(error).__name__})") from error


def _outcome(question: Callable[[], T]) -> Callable[[], T | ProviderError]:
    """What becomes of a question, told in whichever thread wants to know."""
    try:
        answer: T | ProviderError = question()
    except ProviderError as error:
        answer = error
    except Exception as error:  # noqa: BLE001 - nothing may end in a thread, unseen
        failure = error

        def again() -> T:
            raise failure

        return again
    return lambda: answer
