"""Settings from the environment, each with its unit, default and reason. Read once, at start-up.

The names are `CURFEW_` + the field in capitals. Nothing else in the service looks at the environment, except the
secrets that documents name as `${NAME}` (`service.secrets`).
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from policies.policy import Mode
from policies.quantities import Share, format_share

CommaList = Annotated[
    tuple[str, ...],
    NoDecode,
    BeforeValidator(lambda v: tuple(p.strip() for p in v.split(",") if p.strip()) if isinstance(v, str) else v),
]
"""Written `a,b,c`."""

SHORTEST_TOKEN = 16
SHORTEST_KEY = 32
"""In characters: what is shorter can be guessed."""
SHORTEST_RETENTION = 40
"""In days: what is younger is still worked with."""
LONGEST_RETENTION = 36_500
EXAMPLE = "{days: 14, max_false_stops: 1%, min_stops: 20}"


class RequireBacktest(BaseModel):
    """What a policy's back-test must show before the policy may enforce. Whether one does: `service.gate`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    days: int
    """Of history that it saw, at least."""
    max_false_stops: Share
    """Of its decided stops, at most."""
    min_stops: int
    """Decided, at least: of a few nobody can tell a share."""

    @field_validator("days", "min_stops", mode="before")
    @classmethod
    def _at_least_one(cls, value: Any, field: ValidationInfo) -> int:
        if type(value) is not int or not 1 <= value <= 1_000_000:
            raise ValueError(f"{field.field_name}: {value!r} is no whole number of 1 or more")
        return value

    def __str__(self) -> str:
        return (
            f"at least {self.days} days of history, at least {self.min_stops} decided stops, "
            f"at most {format_share(self.max_false_stops)} of them false"
        )


def _requirement(value: Any) -> Any:
    """A flow mapping of YAML, which JSON is too; nothing is none."""
    if not isinstance(value, str):
        return value
    try:
        found = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        found = value
    if found is None:
        return None
    wanted = [*RequireBacktest.model_fields]
    if not isinstance(found, Mapping) or sorted(map(str, found)) != sorted(wanted):
        raise ValueError(f"must say {', '.join(wanted)} and nothing else, like {EXAMPLE}; this says {value!r}")
    return found


class Settings(BaseSettings):
    """How this installation runs."""

    model_config = SettingsConfigDict(env_prefix="CURFEW_", extra="ignore", frozen=True)

    home: Path = Path(".curfew")
    """State directory: the SQLite file and the generated secret key live here."""
    database_url: str = ""
    """SQLAlchemy URL; empty means SQLite in `home`. PostgreSQL as `postgresql://user:password@host/name`."""
    ceiling: Mode = Mode.OBSERVE
    """Caps every policy. `observe` by default: nothing is warned about or stopped until a person says so."""
    admin_token: SecretStr | None = None
    """A bearer token with the admin role, for the first steps. Empty is none; at least 16 characters but in a demo."""
    secret_key: SecretStr | None = None
    """Signs links and sessions, at least 32 characters. Without it one is made once and kept in `home`."""
    public_url: str = ""
    """Where people reach this service. Without a usable one there are no links and therefore no enforcement."""
    trusted_proxies: CommaList = ()
    """Addresses or networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed. None by default."""
    cycle_seconds: float = Field(60, ge=0)
    """Real seconds between cycles; 0: only on request."""
    allow_targets: CommaList = ()
    """Hosts or networks on loopback and private ranges that notifications may reach. None by default (SSRF)."""
    allow_endpoints: CommaList = ()
    """The same for custom endpoints of sources."""
    allow_exec: bool = False
    """Kubeconfigs of sources may log in by running a program (`exec`)."""
    mail: SecretStr | None = None
    """Apprise URL for mail to people, with `{to}` where the address goes."""
    notify: CommaList = ()
    """Who hears about resources without an owner and about the service itself: addresses or Apprise URLs."""
    metrics_anonymous: bool = False
    """Serve `/metrics` without a token."""
    breaker: Share = 0.3
    """Share of the installation's GPUs that may be stopped within an hour before everything is held. With its %."""
    require_backtest: Annotated[RequireBacktest | None, NoDecode, BeforeValidator(_requirement)] = None
    """What a policy must have passed before its mode may become `enforce`, like
    `{days: 14, max_false_stops: 1%, min_stops: 20}`. None by default: then people alone decide."""
    apply: str = ""
    """Files or folders applied at start, separated by `:`."""
    secrets_dir: Path | None = None
    """Folder of files that `${NAME}` in documents may read, besides `CURFEW_SECRET_NAME`."""
    prices: Path | None = None
    """A price file (YAML); its prices win over list prices."""
    rates: Path | None = None
    """A file of dated exchange rates (YAML). Without it a budget in another currency than its prices is unknown."""
    retention_findings_days: int = Field(400, ge=0, le=LONGEST_RETENTION)
    """Days that findings are kept once they have ended, with their actions, messages and used links; 0: for ever. 13
    months let this month be compared with the same one a year ago."""
    retention_meter_days: int = Field(400, ge=0, le=LONGEST_RETENTION)
    """Days that what was metered is known by machine and second; older, by project and day, without loss of money."""
    retention_resources_days: int = Field(400, ge=0, le=LONGEST_RETENTION)
    """Days that resources are shown after they ended or were orphaned, and until nothing tells of them; 0: for ever."""
    retention_audit_days: int = Field(0, ge=0, le=LONGEST_RETENTION)
    """Days that lines of the audit log are kept; 0: for ever, because how long is for a company's rules to say."""
    history: SecretStr | None = None
    """Where what was seen is kept for back-tests: a folder, or a URL that fsspec reaches like `s3://bucket/folder`; it
    may hold a login. Default: `history` in `home`. Empty or `off`: nothing is kept."""
    history_days: int = Field(400, ge=0, le=LONGEST_RETENTION)
    """Days of it that are kept; 0: for ever."""
    retention_cycles: int = Field(1000, ge=1)
    """Reports of cycles that are kept; what they did lives on in findings, actions and the audit log."""
    demo_speed: float = Field(0, ge=0)
    """Above 0: the accelerated demo clock, this many times as fast as real time. Only simulated sources are allowed."""
    demo_start: str = "2026-11-14T06:00:00Z"
    """Where the demo clock starts."""

    @field_validator("admin_token", "secret_key")
    @classmethod
    def _blank_is_none(cls, value: SecretStr | None) -> SecretStr | None:
        """A variable that is set to nothing is no secret everybody knows, but none."""
        stripped = value.get_secret_value().strip() if value else ""
        return SecretStr(stripped) if stripped else None

    @model_validator(mode="after")
    def _no_short_secrets(self) -> Settings:
        token, key = self.admin_token, self.secret_key
        if token is not None and len(token) < SHORTEST_TOKEN and self.demo_speed == 0:
            raise ValueError(
                f"CURFEW_ADMIN_TOKEN must have at least {SHORTEST_TOKEN} characters, like `openssl rand -hex 24` makes"
            )
        if key is not None and len(key) < SHORTEST_KEY:
            raise ValueError(
                f"CURFEW_SECRET_KEY must have at least {SHORTEST_KEY} characters, like `openssl rand -hex 32` makes"
            )
        return self

    @field_validator("retention_findings_days", "retention_meter_days", "retention_resources_days")
    @classmethod
    def _old_enough(cls, days: int) -> int:
        """Links in messages live for days, spend budgets look back for weeks."""
        if 0 < days < SHORTEST_RETENTION:
            raise ValueError(f"must be 0 (for ever) or at least {SHORTEST_RETENTION} days")
        return days

    @field_validator("public_url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        value = value.rstrip("/")
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("CURFEW_PUBLIC_URL must start with http:// or https://")
        return value

    @property
    def resolved_database_url(self) -> str:
        """The database's SQLAlchemy URL with its driver."""
        url = self.database_url or f"sqlite:///{self.home / 'curfew.db'}"
        for scheme in ("postgresql://", "postgres://"):
            if url.startswith(scheme):
                return "postgresql+psycopg://" + url.removeprefix(scheme)
        return url

    @property
    def resolved_history(self) -> str | None:
        """Where history is kept; None: nowhere."""
        if self.history is None:
            return str(self.home / "history")
        said = self.history.get_secret_value().strip()
        return None if said in ("", "off") else said

    def signing_key(self) -> str:
        """The key links and sessions are signed with; made and kept on first use when none is set."""
        if self.secret_key is not None:
            return self.secret_key.get_secret_value()
        path = self.home / "secret_key"
        if not path.exists():
            self._make_key(path)
        key = path.read_text().strip()
        if len(key) < SHORTEST_KEY:
            raise ValueError(f"the key in {path} has fewer than {SHORTEST_KEY} characters; delete it and start again")
        return key

    def _make_key(self, path: Path) -> None:
        """Whole or not at all, whatever ends this process; of two that start at once, both use the first one's."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, made = tempfile.mkstemp(dir=self.home, prefix=".secret_key-")  # readable by its owner only
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32))
                file.flush()
                os.fsync(file.fileno())
            os.link(made, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(made)
