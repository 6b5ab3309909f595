"""Turns a source's settings into the projects it sees: a list, or all of an organisation or a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from providers.errors import ProviderError
from providers.gcp import Config
from providers.gcp.client import Client, NotEnabled
from providers.questions import readable
from providers.records import Fault

HOLDS = timedelta(minutes=10)
"""How long an organisation's list of projects is trusted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Roster:
    """Whose resources are seen now."""

    identity: str
    """The organisation or the folder. Of a list of projects it is `projects`, which stays when the list grows: that
    each answer is the right project's own is seen by the ids in it."""
    projects: tuple[str, ...]
    fault: Fault | None = None
    """Why this is an earlier list. There may be further projects."""


class Projects:
    """The projects of a source, by id."""

    def __init__(self, config: Config, client: Client, *, now: Callable[[], datetime]) -> None:
        self._config = config
        self._client = client
        self._now = now
        self._discovered: tuple[datetime, Roster] | None = None
        self._numbers: dict[str, str] = {}
        """Of projects by id; they never change."""

    def roster(self) -> Roster:
        """Raises what Google answers; but what was discovered before is then taken as it was."""
        if self._config.projects is not None:
            return Roster(identity="projects", projects=self._config.projects)
        before = self._discovered
        now = self._now()
        if before is not None and timedelta() <= now - before[0] < HOLDS:
            return before[1]
        try:
            roster = self._discover()
        except ProviderError as error:
            return self.earlier(error)
        self._discovered = (now, roster)
        return roster

    def earlier(self, why: ProviderError) -> Roster:
        """What was discovered before, where there is nothing newer. Raises why, where there never was anything."""
        if self._discovered is None:
            raise why
        return replace(self._discovered[1], fault=why.as_fault())

    def is_switched_off_in(self, project: str, off: NotEnabled) -> bool:
        """Whether it is this project that lacks the API, so that nothing of it can be there. Some APIs look at the
        project that the credentials belong to: that says nothing of the one that was asked. Raises what Google answers
        when it is asked for the project's number, by which it usually speaks of it.
        """
        if off.consumer is None or off.consumer == project:
            return off.consumer is not None
        if project not in self._numbers:
            told = self._client.get("cloudresourcemanager", f"/v3/projects/{project}", prompt=True)
            self._numbers[project] = str(told.get("name")).removeprefix("projects/")
        return off.consumer == self._numbers[project]

    def _discover(self) -> Roster:
        top = (
            f"organizations/{self._config.organization}"
            if self._config.organization
            else f"folders/{self._config.folder}"
        )
        excluded = set(self._config.exclude_projects)
        with readable(top):
            found = {project for parent in self._parents(top, excluded) for project in self._children(parent)}
        return Roster(identity=top, projects=tuple(sorted(found - excluded)))

    def _parents(self, top: str, excluded: set[str]) -> Iterator[str]:
        """It, and all folders below it that are not left out, each once: they are moved while they are listed."""
        waiting, seen = [top], {top}
        while waiting:
            parent = waiting.pop()
            yield parent
            for page in self._client.pages(
                "cloudresourcemanager", "/v3/folders", query={"parent": parent, "pageSize": 300}
            ):
                for folder in page.get("folders") or ():
                    name = folder["name"]
                    if folder.get("state") == "ACTIVE" and name not in excluded | seen:
                        seen.add(name)
                        waiting.append(name)

    def _children(self, parent: str) -> Iterator[str]:
        """Projects right below it. One that is being shut down has lost its machines already."""
        for page in self._client.pages(
            "cloudresourcemanager", "/v3/projects", query={"parent": parent, "pageSize": 300}
        ):
            for project in page.get("projects") or ():
                if project.get("state") == "ACTIVE":
                    self._numbers[project["projectId"]] = project["name"].removeprefix("projects/")
                    yield project["projectId"]
