"""The providers of the sources in force, built when a source's document changes, and what they may do.

The ceilings are composed here, once: below `enforce` a source's actuator is replaced by one that refuses to disturb
anything, so that no mistake further up can act. Restoring what we stopped stays possible.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar, cast

import structlog

from policies.policy import Mode, lowest
from providers import registry
from providers.contract import Actuator, BuildContext, Provider
from providers.errors import Misconfigured, ProviderError, Refused
from providers.records import (
    Fault,
    InventoryAnswer,
    Kind,
    PartReport,
    ResourceRecord,
    ResourceRef,
    TelemetryAnswer,
    Verb,
)
from service.asking import Asked
from service.documents import Source
from service.secrets import MissingSecret, Secrets
from service.targets import may_reach

log = structlog.get_logger()
Part = TypeVar("Part")


class Discreet:
    """One part of a provider: whatever its cloud's errors quote, it tells no secret."""

    def __init__(self, inner: object, mask: Callable[[str], str]) -> None:
        self._inner = inner
        self._mask = mask

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return partial(self._call, found) if callable(found) else found

    def _call(self, method: Callable[..., Any], *args: Any, **more: Any) -> Any:
        try:
            answer = method(*args, **more)
        except ProviderError as error:
            self._hush(error)
            raise
        match answer:
            case InventoryAnswer():
                return replace(answer, parts=self._masked(answer.parts))
            case TelemetryAnswer():
                return replace(answer, faults=self._masked(answer.faults))
            case dict():  # what became of acts, by request
                for outcome in answer.values():
                    self._hush(outcome)
        return answer

    def _hush(self, error: object) -> None:
        if isinstance(error, ProviderError):
            error.sentence = self._mask(error.sentence)
            error.args = (error.sentence,)

    def _masked(self, parts: tuple[PartReport, ...]) -> tuple[PartReport, ...]:
        return tuple(
            part
            if part.fault is None
            else replace(part, fault=replace(part.fault, sentence=self._mask(part.fault.sentence)))
            for part in parts
        )


class CannotDisturb:
    """An actuator below the ceiling: refuses every act, still restores."""

    def __init__(self, inner: Actuator, ceiling: Mode) -> None:
        self._inner = inner
        self._ceiling = ceiling

    def remember(self, record: ResourceRecord, verb: Verb) -> dict[str, Any]:
        return self._inner.remember(record, verb)

    def act(self, ref: ResourceRef, verb: Verb, *, request_id: str, reason: str = "") -> None:
        raise Refused(f"the ceiling is {self._ceiling.value}: nothing may be disturbed")

    def restore(self, ref: ResourceRef, remembered: Mapping[str, Any], *, request_id: str) -> None:
        self._inner.restore(ref, remembered, request_id=request_id)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One source: its document and its provider, or why it could not be built."""

    source: Source
    provider: Provider | None
    fault: Fault | None = None
    asked: dict[str, Asked[Any]] = field(default_factory=dict, compare=False, repr=False)
    """What it was asked and whose answer nobody took yet. A changed document makes another member, asked nothing."""
    ending: Future[None] = field(default_factory=Future, compare=False, repr=False)
    """Done once nobody should wait for an answer any more."""


class Fleet:
    """All sources in force."""

    def __init__(
        self,
        *,
        secrets: Secrets,
        ceiling: Mode,
        now: Callable[[], datetime],
        allow_endpoints: Sequence[str] = (),
        allow_exec: bool = False,
    ) -> None:
        self.changed: Callable[[str], None] = _nobody
        """Hears what a source has seen between looks that may change a verdict."""
        self._allow_endpoints = allow_endpoints
        self._allow_exec = allow_exec
        self._secrets = secrets
        self._ceiling = ceiling
        self._now = now
        self._members: dict[str, Member] = {}
        self._lock = threading.Lock()
        self._ending: Future[None] = Future()

    def update(self, sources: Mapping[str, Source]) -> Mapping[str, Member]:
        """Build what is new or changed, retry what failed, drop what is gone."""
        with self._lock:
            before = self._members
            self._members = {name: self._member(source) for name, source in sources.items()}
            kept = {id(member) for member in self._members.values()}
            _close(member for member in before.values() if id(member) not in kept)
            return self._members

    def end(self) -> None:
        """The service stops: whoever waits for an answer goes on without it."""
        if not self._ending.done():
            self._ending.set_result(None)
        _close(self._members.values())

    @property
    def members(self) -> Mapping[str, Member]:
        return self._members

    def get(self, source: str) -> Provider | None:
        member = self._members.get(source)
        return None if member is None else member.provider

    def verbs(self) -> dict[str, Mapping[Kind, frozenset[Verb]]]:
        """Source → kind → what its provider can do."""
        return {
            name: member.provider.capabilities.verbs
            for name, member in self._members.items()
            if member.provider is not None and member.provider.actuator is not None
        }

    def _member(self, source: Source) -> Member:
        before = self._members.get(source.name)
        if before is not None and before.provider is not None and before.source == source:
            return before
        try:
            config = registry.load(source.provider).Config.model_validate(self._secrets.reveal(source.config))
            context = BuildContext(
                source=source.name,
                now=self._now,
                may_reach=partial(may_reach, allowed=self._allow_endpoints),
                allow_exec=self._allow_exec,
                secret=self._secret,
                changed=lambda: self.changed(f"source {source.name}"),
            )
            built = registry.build(source.provider, config, context)
        except (ProviderError, MissingSecret, ValueError) as error:
            fault = error.as_fault() if isinstance(error, ProviderError) else Misconfigured(str(error)).as_fault()
            fault = replace(fault, sentence=self._secrets.mask(fault.sentence))
            return Member(source=source, provider=None, fault=fault)
        except Exception as error:  # of a provider that somebody else wrote
            log.exception("a provider could not be built", source=source.name)
            sentence = f"its provider {source.provider!r} failed while it was built ({type(error).__name__})"
            return Member(source=source, provider=None, fault=Misconfigured(sentence).as_fault())
        return Member(source=source, provider=self._capped(self._discreet(built), source), ending=self._ending)

    def _secret(self, name: str) -> str:
        try:
            return self._secrets.get(name)
        except MissingSecret as error:
            raise Misconfigured(str(error)) from None

    def _discreet(self, provider: Provider) -> Provider:
        return replace(
            provider,
            inventory=self._hushed(provider.inventory),
            telemetry=self._hushed(provider.telemetry),
            prices=self._hushed(provider.prices),
            actuator=self._hushed(provider.actuator),
            operations=self._hushed(provider.operations),
            run_limits=self._hushed(provider.run_limits),
        )

    def _hushed(self, part: Part) -> Part:
        return part and cast(Part, Discreet(part, self._secrets.mask))

    def _capped(self, provider: Provider, source: Source) -> Provider:
        ceiling = lowest(self._ceiling, source.ceiling)
        if provider.actuator is None or ceiling is Mode.ENFORCE:
            return provider
        return replace(provider, actuator=CannotDisturb(provider.actuator, ceiling))


def _nobody(_by: str) -> None:
    """Without a schedule nobody looks of himself."""


def _close(members: Iterable[Member]) -> None:
    """A provider that fails to end its own things harms nobody."""
    for member in members:
        if member.provider is not None:
            try:
                member.provider.close()
            except Exception:
                log.exception("a provider could not be closed", source=member.source.name)
