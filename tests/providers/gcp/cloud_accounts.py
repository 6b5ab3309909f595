"""Who asks, and whose projects these are: service accounts with keys and tokens, the tree of folders and projects."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import google.auth.jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.providers.gcp.cloud_compute_part import answers
from tests.providers.gcp.cloud_lists import Filter, page
from tests.providers.gcp.cloud_refusals import Refusal, Reply, answer, permission_denied, unauthenticated

if TYPE_CHECKING:
    from tests.providers.gcp.cloud import Call, Cloud

Json = dict[str, Any]

TOKEN_AUDIENCE = "https://oauth2.googleapis.com/token"
"""Whom Google's libraries write to, wherever they send it."""


class Accounts:
    """Anybody may ask, and is not asked who he is, until somebody is known (by a key) or `required` is set."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.required = False
        """Whether a call without a token that was given here is refused."""
        self.tokens: dict[str, str] = {}
        """Whose they are, while they hold."""
        self.keys: dict[str, str] = {}
        """Service accounts that have a key, and the id of it."""
        self.may_impersonate: dict[str, set[str]] = {}
        """By service account, who may have a token for it."""
        self.folders: dict[str, Json] = {}
        """By `folders/…`."""

    def state(self) -> object:
        """Nothing: tokens are no part of what a call could change."""
        return None

    # Keys and tokens

    def key_file(self, folder: Path, email: str = "curfew@research.iam.gserviceaccount.com") -> Path:
        """A key of a service account, as it is downloaded; from now on everybody is asked who he is."""
        self.required = True
        self.keys[email] = f"key-of-{email.partition('@')[0]}"
        path = folder / f"{email.partition('@')[0]}.json"
        key = {
            "type": "service_account", "project_id": email.partition("@")[2].partition(".")[0],
            "private_key_id": self.keys[email], "private_key": _pair()[0], "client_email": email, "client_id": "1",
            "token_uri": f"{self.cloud.endpoint}/token", "universe_domain": "googleapis.com",
        }  # fmt: skip
        path.write_text(json.dumps(key))
        return path

    def allow_impersonation(self, target: str, *, by: str) -> None:
        self.may_impersonate.setdefault(target, set()).add(by)

    def expire(self) -> None:
        """No token that was given so far holds any longer."""
        self.tokens.clear()

    def caller(self, authorization: str) -> str:
        """Whose token it is; empty where nobody is asked who he is."""
        token = authorization.removeprefix("Bearer ")
        if token in self.tokens:
            return self.tokens[token]
        claims = self._claims(token) if token.count(".") == 2 else None  # signed by the caller, without asking for one
        if claims is not None:
            return str(claims["iss"])
        if self.required:
            raise unauthenticated(missing=not authorization)
        return ""

    def token(self, raw: bytes) -> Reply:
        """OAuth's way from a key to a token."""
        said = {name: values[0] for name, values in parse_qs(raw.decode()).items()}
        claims = self._claims(said.get("assertion", ""))
        if claims is None or claims.get("aud") not in {f"{self.cloud.endpoint}/token", TOKEN_AUDIENCE}:
            return answer({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, status=400)
        return answer({"access_token": self._given(str(claims["iss"])), "expires_in": 3599, "token_type": "Bearer"})

    def _claims(self, assertion: str) -> Json | None:
        try:
            header = google.auth.jwt.decode_header(assertion)
            claims: Json = google.auth.jwt.decode(assertion, certs=_pair()[1], clock_skew_in_seconds=10)
        except (ValueError, google.auth.exceptions.GoogleAuthError):
            return None
        return claims if self.keys.get(str(claims.get("iss"))) == header.get("kid") else None

    def _given(self, email: str) -> str:
        token = f"ya29.{len(self.tokens)}-{self.cloud.operations.number()}"
        self.tokens[token] = email
        return token

    @answers("iamcredentials.projects.serviceAccounts.generateAccessToken")
    def impersonate(self, call: Call) -> Json:
        target = call.names["serviceAccountsId"]
        if call.caller not in self.may_impersonate.get(target, ()):
            path = f"projects/-/serviceAccounts/{target}"
            raise permission_denied("iam.serviceAccounts.getAccessToken", path)
        until = datetime.now(UTC) + timedelta(seconds=float(call.body.get("lifetime", "3600s").removesuffix("s")))
        return {"accessToken": self._given(target), "expireTime": until.strftime("%Y-%m-%dT%H:%M:%SZ")}

    # Folders and projects

    def folder(self, number: str, *, parent: str, name: str = "", state: str = "ACTIVE") -> str:
        path = f"folders/{number}"
        self.folders[path] = {
            "name": path, "parent": parent, "displayName": name or path, "state": state,
            "createTime": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        return path

    @answers("cloudresourcemanager.folders.list")
    def list_folders(self, call: Call) -> Json:
        return self._page(call, self._below(call, self.folders), "folders", most=300)

    @answers("cloudresourcemanager.projects.list")
    def list_projects(self, call: Call) -> Json:
        return self._page(call, self._below(call, self._projects()), "projects", most=300)

    @answers("cloudresourcemanager.projects.search")
    def search_projects(self, call: Call) -> Json:
        found = self._searched(call, self._projects())
        return self._page(call, found, "projects", most=500)

    @answers("cloudresourcemanager.folders.search")
    def search_folders(self, call: Call) -> Json:
        return self._page(call, self._searched(call, self.folders), "folders", most=500)

    @answers("cloudresourcemanager.projects.get")
    def get_project(self, call: Call) -> Json:
        return self._projects()[f"projects/{self.cloud.projects[call.project].number}"]

    def _projects(self) -> dict[str, Json]:
        return {
            f"projects/{one.number}": {
                "name": f"projects/{one.number}", "projectId": one.id, "displayName": one.id, "parent": one.parent,
                "state": one.state, "labels": one.labels, "createTime": "2026-01-01T00:00:00Z",
            }
            for one in self.cloud.projects.values()
        }  # fmt: skip

    def _below(self, call: Call, things: dict[str, Json]) -> dict[str, Json]:
        parent = call.query.get("parent", "")
        if not parent.startswith(("organizations/", "folders/")):
            raise Refusal(400, "Request contains an invalid argument.", reason="badRequest")
        known = {one.parent for one in self.cloud.projects.values()} | {*self.folders}
        known |= {folder["parent"] for folder in self.folders.values()}
        if parent not in known:
            raise Refusal(403, "The caller does not have permission", reason="forbidden")
        deleted = call.query.get("showDeleted", False)
        return {
            path: one for path, one in things.items()
            if one["parent"] == parent and (deleted or one["state"] == "ACTIVE")
        }  # fmt: skip

    def _searched(self, call: Call, things: dict[str, Json]) -> dict[str, Json]:
        query = call.query.get("query", "").strip()
        wanted = Filter(query).read() if query else lambda _: True
        return {path: one for path, one in things.items() if wanted({**one, "id": one.get("projectId", "")})}

    def _page(self, call: Call, found: dict[str, Json], field: str, *, most: int) -> Json:
        told, token = page(
            [*found.items()], most=min(call.query.get("pageSize") or most, most, self.cloud.most_per_page),
            token=call.query.get("pageToken"), question=f"{call.path} {call.query.get('parent')}",
        )  # fmt: skip
        body: Json = {field: [one for _, one in told]} if told else {}
        return {**body, "nextPageToken": token} if token else body


@cache
def _pair() -> tuple[str, str]:
    """A key, private and public; one for all, as it takes a while to make."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    secret = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return secret.decode(), public.decode()
