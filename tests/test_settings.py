"""What the environment may say, and what it may not."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.settings import Settings

BLANK = ["", "   ", "\n"]


@pytest.mark.parametrize("blank", BLANK)
@pytest.mark.parametrize("name", ["CURFEW_ADMIN_TOKEN", "CURFEW_SECRET_KEY"])
def test_a_secret_set_to_nothing_is_none(name: str, blank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, blank)
    settings = Settings()
    assert (settings.admin_token, settings.secret_key) == (None, None)


TOO_SHORT = {
    "an admin's token that can be guessed": ({"admin_token": "t" * 15}, "CURFEW_ADMIN_TOKEN must have at least 16"),
    "one that is short without its blanks": ({"admin_token": " " * 16 + "t"}, "CURFEW_ADMIN_TOKEN must have at least"),
    "a key that can be guessed": ({"secret_key": "s" * 31}, "CURFEW_SECRET_KEY must have at least 32"),
    "such a key in a demo": ({"secret_key": "s", "demo_speed": 240}, "CURFEW_SECRET_KEY must have at least 32"),
}


@pytest.mark.parametrize("case", TOO_SHORT)
def test_a_short_secret_is_refused(case: str) -> None:
    given, says = TOO_SHORT[case]
    with pytest.raises(ValidationError, match=says) as refused:
        Settings(**given)  # type: ignore[arg-type]
    assert "sss" not in refused.value.errors()[0]["msg"]


def test_the_demo_may_have_a_short_token() -> None:
    settings = Settings(admin_token="demo", demo_speed=240)  # type: ignore[arg-type]
    assert settings.admin_token is not None


def test_the_key_is_made_once_and_is_its_owners(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    settings = Settings(home=home)
    with ThreadPoolExecutor(8) as pool:
        keys = {future.result() for future in [pool.submit(settings.signing_key) for _ in range(8)]}
    assert keys == {Settings(home=home).signing_key()}
    assert len(keys.pop()) >= 32
    assert [path.name for path in home.iterdir()] == ["secret_key"]
    assert oct((home / "secret_key").stat().st_mode & 0o777) == "0o600"
    assert oct(home.stat().st_mode & 0o777) == "0o700"


def test_a_key_that_was_never_written_whole_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_text("")
    with pytest.raises(ValueError, match=r"secret_key has fewer than 32 characters; delete it"):
        Settings(home=tmp_path).signing_key()


def test_a_crash_while_the_key_is_made_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", crash)
        with pytest.raises(KeyboardInterrupt):
            Settings(home=tmp_path).signing_key()
    assert not (tmp_path / "secret_key").exists()
    assert len(Settings(home=tmp_path).signing_key()) >= 32


REQUIRED = {
    "as YAML is written": "{days: 14, max_false_stops: 1%, min_stops: 20}",
    "as JSON is written": '{"days": 14, "max_false_stops": "1%", "min_stops": 20}',
    "over several lines": "days: 14\nmax_false_stops: 1%\nmin_stops: 20\n",
}


@pytest.mark.parametrize("case", REQUIRED)
def test_what_a_back_test_must_show_is_a_mapping(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURFEW_REQUIRE_BACKTEST", REQUIRED[case])
    required = Settings().require_backtest
    assert required is not None
    assert (required.days, required.max_false_stops, required.min_stops) == (14, 0.01, 20)


@pytest.mark.parametrize("blank", [*BLANK, "null"])
def test_no_back_test_is_required_where_nothing_is_said(blank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURFEW_REQUIRE_BACKTEST", blank)
    assert Settings().require_backtest is None


NO_REQUIREMENT = {
    "a key is missing": ("{days: 14, min_stops: 20}", "must say days, max_false_stops, min_stops and nothing else"),
    "a key is misspelt": ("{day: 14, max_false_stops: 1%, min_stops: 20}", "like {days: 14, max_false_stops: 1%"),
    "there is one too many": ("{days: 1, max_false_stops: 1%, min_stops: 1, hours: 2}", "and nothing else"),
    "it is a number": ("14", "must say days"),
    "it is a list": ("[14, 1%, 20]", "must say days"),
    "it is no YAML": ("{days: 14", "must say days"),
    "there are too few days": ("{days: 0, max_false_stops: 1%, min_stops: 20}", "days: 0 is no whole number"),
    "the days are a duration": ("{days: 14d, max_false_stops: 1%, min_stops: 20}", "days: '14d' is no whole number"),
    "no stop is enough": ("{days: 14, max_false_stops: 1%, min_stops: 0}", "min_stops: 0 is no whole number"),
    "the share has no sign": ("{days: 14, max_false_stops: 1, min_stops: 20}", "write it with its sign, like 10%"),
    "the share is beyond all": ("{days: 14, max_false_stops: 101%, min_stops: 20}", "is no share"),
}


@pytest.mark.parametrize("case", NO_REQUIREMENT)
def test_an_unclear_requirement_is_refused_at_the_start(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, says = NO_REQUIREMENT[case]
    monkeypatch.setenv("CURFEW_REQUIRE_BACKTEST", given)
    with pytest.raises(ValidationError, match=re.escape(says)):
        Settings()
