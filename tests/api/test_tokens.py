"""Tokens: shown once, kept as a hash, expiring, revocable, and slow to guess."""

from __future__ import annotations

from datetime import timedelta

import pytest
import uvicorn
from sqlmodel import select

from service.serve import server_options
from service.settings import Settings
from service.store.tables import IdempotencyKey, Token
from tests.api.service_under_test import Api, Client


def test_a_token_is_shown_once_and_kept_as_a_hash(api_everywhere: Api) -> None:
    api = api_everywhere
    created = api.admin.put("/api/v1/tokens/ci", json={"role": "admin"}, headers={"Idempotency-Key": "k"})
    raw = created.json()["token"]
    assert created.status_code == 201
    assert raw.startswith("curfew_")
    assert len(raw) >= len("curfew_") + 43  # 256 bits
    for answer in (api.admin.get("/api/v1/tokens/ci"), api.admin.get("/api/v1/tokens"), api.admin.get("/api/v1/audit")):
        assert raw not in answer.text
    with api.rt.database.reading() as session:
        assert raw not in str(session.exec(select(Token)).all())
        assert raw not in str(session.exec(select(IdempotencyKey)).all())


def test_changing_a_token_keeps_its_text_and_rotating_makes_a_new_one(api: Api) -> None:
    ci = api.holder("ci", "viewer")
    changed = api.admin.put("/api/v1/tokens/ci", json={"role": "operator"})
    assert (changed.status_code, changed.json()["token"]) == (200, None)
    assert ci.post("/api/v1/cycles").status_code == 202
    rotated = api.admin.put("/api/v1/tokens/ci", json={"role": "operator", "rotate": True}).json()["token"]
    assert ci.get("/api/v1/hold").status_code == 401
    assert Client(api.app, token=rotated).get("/api/v1/hold").status_code == 200


def test_a_revoked_token_opens_nothing(api: Api) -> None:
    ci = api.holder("ci", "viewer")
    assert api.admin.delete("/api/v1/tokens/ci").status_code == 204
    assert ci.get("/api/v1/hold").status_code == 401
    assert api.admin.get("/api/v1/tokens/ci").status_code == 404


def test_a_token_ends_at_its_time_and_not_before(api: Api) -> None:
    raw = api.admin.put("/api/v1/tokens/ci", json={"role": "viewer", "for": "1h"}).json()["token"]
    ci = Client(api.app, token=raw)
    api.clock.forward(timedelta(minutes=59, seconds=59))
    assert ci.get("/api/v1/hold").status_code == 200
    api.clock.forward(timedelta(seconds=1))
    assert ci.get("/api/v1/hold").status_code == 401
    assert api.admin.get("/api/v1/tokens/ci").json()["expired"] is True


MEANINGLESS = {
    "an owner of nothing": {"role": "owner"},
    "an operator of some projects": {"role": "operator", "projects": ["vision"]},
    "an admin of some projects": {"role": "admin", "projects": ["vision"]},
    "a role nobody knows": {"role": "root"},
    "two ends": {"role": "viewer", "for": "1h", "until": "2026-12-01T00:00:00Z"},
    "an end in the past": {"role": "viewer", "until": "2020-01-01T00:00:00Z"},
    "an end without its offset": {"role": "viewer", "until": "2026-12-01T00:00:00"},
    "an end beyond the calendar": {"role": "viewer", "for": "99999999999d"},
    "a field nobody knows": {"role": "viewer", "rights": []},
}


@pytest.mark.parametrize("case", MEANINGLESS)
def test_a_token_that_means_nothing_is_refused(api: Api, case: str) -> None:
    assert api.admin.put("/api/v1/tokens/ci", json=MEANINGLESS[case]).status_code == 422


WRONG_HEADERS = {
    "none": None,
    "of another scheme": "Basic dTpw",
    "empty": "Bearer ",
    "made up": "Bearer curfew_" + "A" * 43,
}


@pytest.mark.parametrize("case", WRONG_HEADERS)
def test_whoever_has_no_token_is_asked_for_one(api: Api, case: str) -> None:
    header = WRONG_HEADERS[case]
    answer = api.nobody().get("/api/v1/hold", headers={} if header is None else {"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["code"] == "Unauthorised"


def test_guessing_is_slowed_down_for_its_own_address_only(api: Api) -> None:
    guesser = Client(api.app, token="wrong", address="203.0.113.5")
    answers = [guesser.get("/api/v1/hold").status_code for _ in range(21)]
    assert answers == [401] * 20 + [429]
    assert guesser.get("/api/v1/hold").headers["Retry-After"] == "60"
    assert Client(api.app, token="wrong").get("/api/v1/hold").status_code == 401


def test_guessing_locks_nobody_out_who_has_a_good_token(api: Api) -> None:
    guesser = Client(api.app, token="wrong", address="203.0.113.5")
    assert [guesser.get("/api/v1/hold").status_code for _ in range(25)][-1] == 429
    assert Client(api.app, token=api.admin.token, address="203.0.113.5").get("/api/v1/hold").status_code == 200


FORWARDED = {
    "nobody is believed by default, not even on loopback": ({}, "127.0.0.1", "127.0.0.1"),
    "a proxy that is trusted": ({"trusted_proxies": "10.0.0.1, 10.1.0.0/16"}, "10.1.2.3", "203.0.113.9"),
    "somebody else who says so": ({"trusted_proxies": "10.0.0.1"}, "127.0.0.1", "127.0.0.1"),
}


@pytest.mark.parametrize("case", FORWARDED)
def test_an_address_is_the_connections_unless_a_trusted_proxy_forwards_another(case: str, api: Api) -> None:
    given, address, counted = FORWARDED[case]
    config = uvicorn.Config(api.app, **server_options(Settings(**given)))  # type: ignore[arg-type]
    config.load()
    guesser = Client(config.loaded_app, token="wrong", address=address)  # type: ignore[arg-type]
    for _ in range(20):
        guesser.get("/api/v1/hold", headers={"X-Forwarded-For": "203.0.113.9"})
    assert api.app.state.failed_logins.blocked(counted)


def test_asking_without_a_token_is_not_guessing(api: Api) -> None:
    assert [api.nobody().get("/api/v1/hold").status_code for _ in range(25)] == [401] * 25
