"""What all lists have in common: pages, and filters on fields."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from tests.providers.gcp.cloud_refusals import Refusal, invalid

Json = dict[str, Any]
T = TypeVar("T")
Test = Callable[[Json], bool]

TOKENS = re.compile(
    r"\s*(?:(?P<mark>[(),])|(?P<op>!=|>=|<=|=|>|<|:)|\"(?P<double>[^\"]*)\"|'(?P<single>[^']*)'|(?P<word>[^\s(),=!<>:\"']+))"
)


def page(
    found: Sequence[tuple[str, T]], *, most: int, token: str | None, question: str
) -> tuple[list[tuple[str, T]], str | None]:
    """A page of what was found, by keys in their order, and the token of the next one.

    A token leads on after the last key of its page, so nothing is left out when what was told is gone meanwhile. It
    is for the question it was given for, and no other.
    """
    mark = hashlib.sha256(question.encode()).hexdigest()[:16]
    asked, after = _read(token) if token else (mark, "")
    if asked != mark:
        raise invalid(f"Invalid value for field 'pageToken': '{token}'. The page token is invalid.")
    rest = sorted((one for one in found if one[0] > after), key=lambda one: one[0])
    told = rest[:most]
    more = base64.urlsafe_b64encode(f"{mark} {told[-1][0]}".encode()).decode() if len(rest) > most else None
    return told, more


def last_before(token: str | None) -> str:
    """The key at which the page before the one of this token ended; nothing is before the first page."""
    return _read(token)[1] if token else ""


def _read(token: str) -> tuple[str, str]:
    try:
        mark, _, key = base64.urlsafe_b64decode(token.encode()).decode().partition(" ")
    except ValueError:
        return "", ""
    return mark, key


def matching(expression: str) -> Test:
    """A filter of Compute Engine: `field = value` with AND, OR, NOT and parentheses, or `field eq pattern`."""
    return Filter(expression).read()


class Filter:
    def __init__(self, expression: str) -> None:
        self.expression = expression
        self.tokens: list[tuple[str, str]] = []
        text, position = expression.strip(), 0
        while position < len(text):
            found = TOKENS.match(text, position)
            if found is None:
                raise self.bad()
            kind = found.lastgroup or ""
            self.tokens.append(("value" if kind in {"double", "single"} else kind, found[kind]))
            position = found.end()

    def read(self) -> Test:
        whole = self.any_of()
        if self.tokens:
            raise self.bad()
        return whole

    def any_of(self) -> Test:
        options = [self.all_of()]
        while self.skipped("word", "OR"):
            options.append(self.all_of())
        return lambda thing: any(option(thing) for option in options)

    def all_of(self) -> Test:
        needed = [self.one()]
        while self.tokens and self.tokens[0] not in {("mark", ")"), ("word", "OR")}:
            self.skipped("word", "AND")
            needed.append(self.one())
        return lambda thing: all(need(thing) for need in needed)

    def one(self) -> Test:
        if self.skipped("word", "NOT"):
            denied = self.one()
            return lambda thing: not denied(thing)
        if self.skipped("mark", "("):
            inner = self.any_of()
            if not self.skipped("mark", ")"):
                raise self.bad()
            return inner
        if len(self.tokens) < 2 or self.tokens[0][0] != "word":
            raise self.bad()
        (_, name), (kind, operator) = self.tokens[:2]
        if kind != "op" and operator not in {"eq", "ne"}:
            raise self.bad()
        del self.tokens[:2]
        return self.compared(name, operator)

    def compared(self, name: str, operator: str) -> Test:
        kind, value = self.tokens.pop(0) if self.tokens else ("", "")
        if kind not in {"word", "value"}:
            raise self.bad()
        return lambda thing: _compared(thing, name, operator, value)

    def skipped(self, *token: str) -> bool:
        if self.tokens[:1] != [token]:
            return False
        del self.tokens[0]
        return True

    def bad(self) -> Refusal:
        return invalid(f"Invalid value for field 'filter': '{self.expression}'. Invalid list filter expression.")


def _compared(thing: Json, name: str, operator: str, value: str) -> bool:
    there: Any = thing
    for part in name.split("."):
        there = there.get(part) if isinstance(there, dict) else None
    if operator == ":":
        return there is not None and (value == "*" or value.lower() in _said(there).lower())
    if operator in {"eq", "ne"}:
        return (there is not None and re.fullmatch(value, _said(there)) is not None) == (operator == "eq")
    if operator in {"=", "!="}:
        return (there is not None and _said(there) == value) == (operator == "=")
    if there is None:
        return False
    left, right = (
        (float(_said(there)), float(value)) if re.fullmatch(r"-?\d+(\.\d+)?", value) else (_said(there), value)
    )
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[operator]  # type: ignore[operator]


def _said(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def merged(before: Mapping[str, Any], patch: Mapping[str, Any]) -> Json:
    """JSON merge patch: what is null goes, what is not named stays."""
    found = dict(before)
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name, {}), value) if isinstance(value, dict) else value
    return found
