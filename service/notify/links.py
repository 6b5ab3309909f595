"""Signed links that let a person who got a message act on its findings, once each, without an account.

A link says what it does and until when it may; it is signed, not secret from its reader. Expiry is counted on the
governed clock, so it is ours and not itsdangerous's. What following a link does belongs to `service.console`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from enum import StrEnum

from itsdangerous import BadData, URLSafeSerializer

from service.notify.wording import moment

SALT = "curfew-link"
SALT_OF_SEVERAL = "curfew-links"
SALT_OF_PROJECT = "curfew-project"
"""Of their own, so that no link is taken for one of another purpose."""
PAGE_LASTS = timedelta(days=14)
"""How long a link to a project's page works: until well after the next message about its money."""


class LinkVerb(StrEnum):
    """What a link may do."""

    KEEP_1H = "keep_1h"
    KEEP_4H = "keep_4h"
    KEEP_UNTIL_MORNING = "keep_until_morning"
    STOP_NOW = "stop_now"
    APPROVE = "approve"
    UNDO = "undo"
    DETAILS = "details"
    """Reads only: the finding's page, for those without an account."""

    @property
    def keeps(self) -> bool:
        return self in (LinkVerb.KEEP_1H, LinkVerb.KEEP_4H, LinkVerb.KEEP_UNTIL_MORNING)


EVERYTHING = tuple(LinkVerb)
HARMLESS = tuple(verb for verb in LinkVerb if verb.keeps or verb is LinkVerb.DETAILS)
"""For whoever is known by a tag alone, which anyone may set."""


class BadLink(Exception):
    """A link that gives no right to anything; the text says why and what to do."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a genuine link says."""

    finding_id: str
    verb: LinkVerb
    recipient: str
    expires: datetime
    episode: int
    until: datetime | None = None
    """For `keep_until_morning`: the morning the message named."""

    @property
    def nonce(self) -> str:
        """What its use is recorded under. A message sent twice about the same episode gives no second use."""
        return hashlib.sha256(f"{self.finding_id}\0{self.episode}\0{self.recipient}\0{self.verb}".encode()).hexdigest()[
            :32
        ]

    def keep_until(self, now: datetime) -> datetime:
        """Until when this keep link keeps, if it is used now."""
        if self.until is not None:
            return self.until
        return now + {LinkVerb.KEEP_1H: timedelta(hours=1), LinkVerb.KEEP_4H: timedelta(hours=4)}[self.verb]


@dataclass(frozen=True, kw_only=True)
class Several:
    """What a genuine link about the findings of one digest says: its reader may see them, and keep them."""

    findings: tuple[tuple[str, int], ...]
    """Each with the episode the digest spoke of."""
    recipient: str
    expires: datetime
    keeps_only: bool = False
    """Of what each link by itself may do, only what is harmless."""

    @property
    def verbs(self) -> Sequence[LinkVerb]:
        return HARMLESS if self.keeps_only else EVERYTHING

    def claims(self, verb: LinkVerb) -> tuple[Claim, ...]:
        """The same right as a link of its own for each finding: whichever is used first counts."""
        return tuple(
            Claim(finding_id=id, verb=verb, recipient=self.recipient, expires=self.expires, episode=episode)
            for id, episode in self.findings
        )


@dataclass(frozen=True, kw_only=True)
class ProjectClaim:
    """What a genuine link to a project's page says: its reader may read that page, and nothing else."""

    project: str
    recipient: str
    expires: datetime


def next_working_morning(now: datetime, zone: tzinfo) -> datetime:
    """The next 09:00, Monday to Friday, on the clocks of that zone."""
    day = now.astimezone(zone).date()
    while True:
        morning = datetime.combine(day, time(9), zone).astimezone(UTC)
        if morning > now and day.weekday() < 5:
            return morning
        day += timedelta(days=1)


class Links:
    """Makes and reads the links of this installation. The first of several keys signs; all of them are accepted."""

    def __init__(self, key: str | Sequence[str], public_url: str) -> None:
        keys = [key] if isinstance(key, str) else list(key)
        self._signer, self._signer_of_several, self._signer_of_project = (
            URLSafeSerializer(keys[::-1], salt=salt, signer_kwargs={"digest_method": hashlib.sha256})
            for salt in (SALT, SALT_OF_SEVERAL, SALT_OF_PROJECT)
        )
        self._public_url = public_url.rstrip("/")

    @property
    def usable(self) -> bool:
        """Without a public URL nobody could follow a link, so there are none."""
        return bool(self._public_url)

    def all_for(
        self,
        finding_id: str,
        episode: int,
        recipient: str,
        now: datetime,
        zone: tzinfo,
        expires: datetime,
        verbs: Sequence[LinkVerb] = EVERYTHING,
    ) -> dict[str, str]:
        """Verb → URL, for one recipient of a message about one finding; empty without a public URL."""
        if not self.usable:
            return {}
        morning = next_working_morning(now, zone)
        return {
            verb.value: self.url(
                Claim(
                    finding_id=finding_id,
                    verb=verb,
                    recipient=recipient,
                    expires=expires,
                    episode=episode,
                    until=morning if verb is LinkVerb.KEEP_UNTIL_MORNING else None,
                )
            )
            for verb in verbs
        }

    def url(self, claim: Claim) -> str:
        return f"{self._public_url}/l/{self._write(claim)}"

    def url_of_several(self, several: Several) -> str:
        ids, episodes = zip(*several.findings, strict=True)
        told = [ids, episodes, several.recipient, int(several.expires.timestamp()), several.keeps_only]
        return f"{self._public_url}/l/all/{_text(self._signer_of_several.dumps(told))}"

    def url_of_project(self, claim: ProjectClaim) -> str:
        told = [claim.project, claim.recipient, int(claim.expires.timestamp())]
        return f"{self._public_url}/p/{_text(self._signer_of_project.dumps(told))}"

    def read_project(self, token: str, now: datetime) -> ProjectClaim:
        """What a genuine link to a project's page says, if it has not expired. Raises BadLink."""
        try:
            project, recipient, expires = self._signer_of_project.loads(token)
            claim = ProjectClaim(project=project, recipient=recipient, expires=datetime.fromtimestamp(expires, UTC))
        except (BadData, ValueError, TypeError) as error:
            raise BadLink(NOT_OURS) from error
        _still_good(claim.expires, now)
        return claim

    def read(self, token: str, now: datetime) -> Claim:
        """The claim of a genuine link that has not expired. Raises BadLink."""
        try:
            finding_id, episode, recipient, expires, verb, *until = self._signer.loads(token)
            claim = Claim(
                finding_id=finding_id,
                verb=LinkVerb(verb),
                recipient=recipient,
                expires=datetime.fromtimestamp(expires, UTC),
                episode=episode,
                until=datetime.fromtimestamp(until[0], UTC) if until else None,
            )
        except (BadData, ValueError, TypeError) as error:
            raise BadLink(NOT_OURS) from error
        _still_good(claim.expires, now)
        return claim

    def read_several(self, token: str, now: datetime) -> Several:
        """What a genuine link about several findings says, if it has not expired. Raises BadLink."""
        try:
            ids, episodes, recipient, expires, keeps_only = self._signer_of_several.loads(token)
            several = Several(
                findings=tuple(zip(ids, episodes, strict=True)),
                recipient=recipient,
                expires=datetime.fromtimestamp(expires, UTC),
                keeps_only=keeps_only,
            )
        except (BadData, ValueError, TypeError) as error:
            raise BadLink(NOT_OURS) from error
        _still_good(several.expires, now)
        return several

    def _write(self, claim: Claim) -> str:
        expires = int(claim.expires.timestamp())
        until = [] if claim.until is None else [int(claim.until.timestamp())]
        return _text(
            self._signer.dumps([claim.finding_id, claim.episode, claim.recipient, expires, claim.verb.value, *until])
        )


NOT_OURS = (
    "This link is not one of ours: it was cut off or changed on its way, or Curfew's signing key is "
    "another one by now. Please use the link in the newest message."
)


def _still_good(expires: datetime, now: datetime) -> None:
    if now >= expires:
        raise BadLink(
            f"This link was good until {moment(expires, UTC)} and has expired. Please use the link in a newer message."
        )


def _text(token: str | bytes) -> str:
    return token if isinstance(token, str) else token.decode()
