"""What the environment may say, and what it may not."""

from __future__ import annotations

import os
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
