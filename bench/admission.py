"""`curfew admission` as a process of its own, asked as API servers ask it: 500 reviews a second over TLS for 20 s, each
sent when it is due whether or not earlier ones were answered. A new snapshot comes every five seconds meanwhile.

Latency counts from when a review was due, so that waiting for a connection counts too. Every answer is checked: it must
be what the same snapshot says when it is asked in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import ssl
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from service.admission.judge import Judge
from service.admission.snapshot import Cluster, Snapshot, Workload
from tests.admission.builders import SOURCE, UID, exemption, pod, policy, request, snapshot
from tests.admission.process import Process, Service, now, running, running_service
from tests.waiting import soon

PROJECTS, NAMESPACES, WORKLOADS, PODS = 50, 500, 3000, 400
CONNECTIONS = 16
"""API servers keep about as many open as they have reviews under way."""


def company() -> Snapshot:
    """Fifty projects, twenty policies, five hundred namespaces."""
    projects = [
        {
            "name": f"team-{n}",
            "owners": [f"lead-{n}@example.org"],
            "timezone": "Asia/Ho_Chi_Minh",
            "match": [{"tags": {"project": f"team-{n}"}}, {"namespaces": [f"team-{n}-{k}" for k in range(10)]}],
        }
        for n in range(PROJECTS)
    ]
    spent = {
        f"team-{n}": {"spent": n % 10 == 0, "until": None, "words": "20,100 of 20,000 USD."} for n in range(PROJECTS)
    }
    running_ = {f"team-{n}": float(n % 20) for n in range(PROJECTS)}
    policies = [
        policy("budget", budgets=spent),
        policy("ownership", ownership={"require": ["project", "owner"]}, mode="warn"),
        policy("spot", spot={"allowed_on_demand": "10%"}, scope={"where": "gpu_count <= 4"}),
        *(policy("quota", name=f"quota-{n}", quota={"max_gpus": 16, "per": "project"}, running=running_,
                 scope={"projects": [f"team-{k}" for k in range(n, PROJECTS, 8)]}) for n in range(8)),
        *(policy("schedule", name=f"hours-{n}", mode="observe", schedule={"on": "Mo-Fr 08:00-20:00", "holidays": "VN"},
                 scope={"tags": {"tier": f"t{n}"}}) for n in range(8)),
        policy("quota", name="large", quota={"max_gpus": 64}, scope={"where": "tags['tier'] = 't1' AND gpu_count > 2"}),
    ]  # fmt: skip
    seen = Cluster(
        identity=UID,
        flavours=("eks", "karpenter"),
        namespaces={f"team-{n % PROJECTS}-{n // PROJECTS}": {"tier": f"t{n % 8}"} for n in range(NAMESPACES)},
        workloads={
            f"team-{n % PROJECTS}-0/Deployment/server-{n}": Workload(id=f"{n:020x}", tags={"owner": f"person-{n % 99}"})
            for n in range(WORKLOADS)
        },
    )
    exempt = [exemption(name=f"e{n}", resources=[f"train-{n}"]) for n in range(20)]
    return snapshot(*policies, at=now(), cluster=seen, projects=projects, exemptions=exempt)


def reviews() -> list[dict[str, Any]]:
    """As large as real ones: pods of 8 KB, of all projects, some with accelerators of two sorts."""
    filler = [{"name": f"VARIABLE_{n}", "value": "x" * 60} for n in range(70)]
    found = []
    for n in range(PODS):
        of = pod(1 + n % 8, labels={"app": f"server-{n}", "owner": f"person-{n % 99}", "pod-template-hash": f"{n:x}"},
                 owner=f"ReplicaSet/server-{n}-{n:x}")  # fmt: skip
        of["spec"]["containers"][0]["env"] = filler
        found.append(request(of, namespace=f"team-{n % PROJECTS}-{n // PROJECTS % 10}", uid=f"{n:036d}"))
    return found


class News(Service):
    """Says each time that a cycle has looked a second later. What it says is prepared: this side has its own work."""

    def __init__(self, first: Snapshot) -> None:
        super().__init__(first)
        self.first = first
        later = [first.model_copy(update={"at": first.at + timedelta(seconds=n)}) for n in range(60)]
        self._bodies = [one.model_dump_json(by_alias=True).encode() for one in later]

    def answer(self, headers: Mapping[str, str]) -> tuple[int, str, bytes]:
        self.asked.append(headers)
        return 200, f'"{len(self.asked)}"', self._bodies[min(len(self.asked), len(self._bodies)) - 1]


@dataclass
class Load:
    """What came of it."""

    seconds: list[float] = field(default_factory=list)
    late: float = 0.0
    """The most that this side was behind with sending: above a few milliseconds the figures are of it."""
    wrong: int = 0
    failed: int = 0


@dataclass
class Asked:
    """One review, ready to be sent, and what must come."""

    path: str
    sent: bytes
    answer: Any


def asked(judge: Judge, url: str) -> list[Asked]:
    found = []
    for number, review in enumerate(reviews()):
        path = ("/mutate", "/validate")[number % 2]
        answer = judge.mutate(review, now()) if number % 2 == 0 else judge.validate(review, now())
        body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": review}).encode()
        lines = (
            f"POST {path} HTTP/1.1",
            f"Host: {url}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        head = "\r\n".join((*lines, "", ""))
        patch = json.loads(json.dumps(answer.patch)) or None
        found.append(Asked(path, head.encode() + body, (answer.refusal is None, len(answer.warnings), patch)))
    return found


async def load(process: Process, questions: list[Asked], *, rate: int, seconds: float) -> Load:
    """Open loop: each is due at its time."""
    host, port = process.url.removeprefix("https://").split(":")
    context = ssl.create_default_context(cafile=str(process.authority))
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    found = Load()

    async def connect() -> None:
        free.put_nowait(await asyncio.open_connection(host, int(port), ssl=context))

    for _ in range(CONNECTIONS):
        await connect()

    async def one(question: Asked, due: float) -> None:
        connection = await free.get()
        try:
            connection[1].write(question.sent)
            answer = await _answer(connection[0])
            found.seconds.append(time.perf_counter() - due)
            found.wrong += answer != question.answer
            free.put_nowait(connection)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            found.failed += 1
            await connect()

    began = time.perf_counter()
    tasks = []
    for number in range(int(rate * seconds)):
        due = began + number / rate
        if (left := due - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        found.late = max(found.late, time.perf_counter() - due)
        tasks.append(asyncio.create_task(one(questions[number % len(questions)], due)))
    await asyncio.gather(*tasks)
    while not free.empty():
        free.get_nowait()[1].close()
    return found


async def _answer(reader: asyncio.StreamReader) -> Any:
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise ValueError(head)
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    response = json.loads(await reader.readexactly(length))["response"]
    patch = json.loads(base64.b64decode(response["patch"])) if "patch" in response else None
    return response["allowed"], len(response.get("warnings", ())), patch


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def milliseconds(values: list[float], share: float) -> str:
    ordered = sorted(values)
    return f"{ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000:.1f} ms"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rate", type=int, default=500, help="reviews a second")
    options.add_argument("--seconds", type=float, default=20)
    given = options.parse_args()
    news = News(company())
    with (
        tempfile.TemporaryDirectory() as name,
        running_service(service=news) as service,
        running(service, Path(name), "--refresh", "5") as process,
    ):
        soon(process.ready, "the snapshot is taken over")
        questions = asked(Judge(news.first, SOURCE), process.url)
        asyncio.run(load(process, questions, rate=100, seconds=PODS / 100))  # each once: answers are remembered
        asked_before, before = len(service.asked), cpu_seconds(process.popen.pid)
        found = asyncio.run(load(process, questions, rate=given.rate, seconds=given.seconds))
        spent = cpu_seconds(process.popen.pid) - before
        snapshots = len(service.asked) - asked_before
        memory = resident_mib(process.popen.pid)
    count = int(given.rate * given.seconds)
    size = statistics.mean(len(one.sent) for one in questions)
    refused = sum(not one.answer[0] for one in questions)
    placed = sum(one.answer[2] is not None for one in questions)
    print(f"{count} reviews of {size / 1024:.1f} KB at {given.rate} a second, {snapshots} new snapshots meanwhile")
    print(f"of {len(questions)} different ones {refused} are refused and {placed} placed on spot")
    for share in (0.5, 0.9, 0.99, 0.999):
        print(f"p{share * 100:g}: {milliseconds(found.seconds, share)}")
    print(f"max: {max(found.seconds) * 1000:.1f} ms; the sender was at most {found.late * 1000:.1f} ms behind")
    print(f"CPU of the process: {spent:.2f} s, {spent / count * 1000:.2f} ms a review; resident {memory:.0f} MiB")
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    assert found.failed == 0, f"{found.failed} reviews failed"
    assert found.wrong == 0, f"{found.wrong} answers were not what the snapshot says"


if __name__ == "__main__":
    main()
