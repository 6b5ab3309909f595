"""Measures Kubernetes on a real API server: listing pods beside the official client's models and beside parsing alone,
following them, and how soon a protection that kubectl sets is a changed decision.

kwok plays the nodes. The lists of 30,000 pods are served by a process of ours: recorded from the API server once, each
node with its pods told several times under other names and uids, as making so many would take etcd minutes. Listing is
whole processes started in turn, and all are asserted to have found the same pods, nodes and GPUs first.
Usage: python -m bench.kubernetes [--nodes 1000] [--pods 10000] [--times 3] [--rounds 3] [--changes 50] [--reactions 15]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:  # the clients below are measured from their start
    from tests.e2e.process import Curfew
    from tests.kubernetes.cluster import Cluster

Json = dict[str, Any]
Held = tuple[str, str, int]
"""A pod, its node, and how many GPUs of it."""

PAGE = 500
GPU = "nvidia.com/gpu"
PODS = "/api/v1/pods"
JOBS = "/apis/kubeflow.org/v1/pytorchjobs"
TOLD_AGAIN = ("/api/v1/nodes", PODS, JOBS)
PROTECT = "curfew-protect"
SOURCE = "bench"
DOCUMENTS = f"""
kind: source
name: {SOURCE}
provider: kubernetes
kubeconfig: {{kubeconfig}}
---
kind: policy
name: not-for-long
type: lifetime
mode: observe
scope: {{{{kinds: [workload]}}}}
lifetime: {{{{max: 1m}}}}
action: stop
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--nodes", type=int, default=1000)
    arguments.add_argument("--pods", type=int, default=10_000)
    arguments.add_argument("--times", type=int, default=3, help="how often the recorded lists tell each node and pod")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--changes", type=int, default=50)
    arguments.add_argument("--reactions", type=int, default=15)
    arguments.add_argument("--list", choices=sorted(WAYS), help="be a client, of this kubeconfig")
    arguments.add_argument("--kubeconfig", type=Path)
    chosen = arguments.parse_args()
    if chosen.list:
        print(json.dumps(WAYS[chosen.list](chosen.kubeconfig)))
    else:
        measure(chosen)


def measure(chosen: argparse.Namespace) -> None:
    from tests.kubernetes.cluster import running_cluster
    from tests.kubernetes.kwok import fleet, kwok

    with running_cluster() as cluster, TemporaryDirectory() as folder:
        namespace = cluster.namespace()
        began = time.perf_counter()
        with kwok(cluster):
            fleet(cluster, namespace, nodes=chosen.nodes, pods=chosen.pods)
        print(
            f"{chosen.nodes:,} nodes, {chosen.pods:,} pods, eight of ten with a GPU; made in "
            f"{time.perf_counter() - began:.0f} s"
        )
        listing(cluster, Path(folder), chosen.times, chosen.rounds)
        first_list(cluster, chosen.rounds)
        following(cluster, namespace, chosen.changes)
        reacting(cluster, namespace, Path(folder), chosen.reactions)


# Listing.


def listing(cluster: Cluster, folder: Path, times: int, rounds: int) -> None:
    recorded = Recorded(cluster, times)
    with recorded.served() as address:
        kubeconfig = folder / "recorded.kubeconfig"
        kubeconfig.write_text(json.dumps(_kubeconfig(address)))
        runs = [{way: client(way, kubeconfig) for way in WAYS} for _ in range(rounds)]
    found = same(runs)
    print(
        f"\nrecorded lists: {recorded.pods:,} pods of {recorded.pod_bytes / recorded.pods / 1000:.1f} kB, "
        f"{found['pods']:,} with GPUs; CPU seconds, least of {rounds} rounds"
    )
    whole = {way: min(run[way]["whole"] for run in runs) for way in WAYS}
    asking = {way: min(run[way]["listing"] for run in runs) for way in WAYS}
    for way in WAYS:
        print(f"  {SAID[way]}: whole process {whole[way]:.2f}, listing {asking[way]:.2f}")
    for way in ("kept", "inventory"):
        print(
            f"{SAID[way]}: {whole[way] / whole['sdk']:.3f} of the official client's models (goal 0.12), "
            f"{whole[way] / whole['parsing']:.1f} times parsing alone"
        )


def first_list(cluster: Cluster, rounds: int) -> None:
    """Of the API server itself, over TLS; and what it takes to keep what it told."""
    ways = ("inventory", "sdk")
    runs = [{way: client(way, cluster.kubeconfig) for way in ways} for _ in range(rounds)]
    found = same(runs)
    print(f"\nthe API server's own list: {found['pods']:,} pods with GPUs on {found['nodes']:,} nodes")
    for way in ways:
        of = [run[way] for run in runs]
        print(
            f"  {SAID[way]}: {min(one['wall'] for one in of):.1f} s until it is here, "
            f"{min(one['whole'] for one in of):.2f} s CPU of the whole process; above its start "
            f"{statistics.median(one['kept_mb'] for one in of):.0f} MB kept, "
            f"{statistics.median(one['peak_mb'] for one in of):.0f} MB at the peak"
        )


def by_the_inventory(kubeconfig: Path) -> Json:
    """What the service does: all nodes, pods and owners that the cluster has, as records."""
    watch = Stopwatch()
    from providers.contract import BuildContext
    from providers.kubernetes import Config, build
    from providers.records import Kind

    provider = build(Config(kubeconfig=str(kubeconfig)), BuildContext(source=SOURCE, now=lambda: datetime.now(UTC)))
    assert provider.inventory is not None
    answer = provider.inventory.list()
    told = watch.told()
    assert answer.complete, answer.parts
    assert all(part.fault is None for part in answer.parts), answer.parts
    gpus = {record.ref.external_id: record.gpu_count for record in answer.records if record.ref.kind is Kind.NODE}
    held = [
        (placement.pod, placement.node, int(placement.share * gpus[placement.node]))
        for record in answer.records
        for placement in record.placements
    ]
    provider.close()
    return told | summary(held)


def by_what_is_kept(kubeconfig: Path) -> Json:
    """The same client and the same thread, of pods alone."""
    watch = Stopwatch()
    from functools import partial

    from providers.kubernetes import Config
    from providers.kubernetes.client import Client
    from providers.kubernetes.slim import slim
    from providers.kubernetes.watch import Watched

    watched = Watched(Client(Config(kubeconfig=str(kubeconfig))), PODS, partial(slim, "pods"))
    look = watched.look(patience=600)
    told = watch.told()
    assert look.fault is None, look.fault
    watched.close()
    return told | summary(_held(look.objects.values()))


def by_the_sdk(kubeconfig: Path) -> Json:
    """The official client with its own models, of pods alone."""
    watch = Stopwatch()
    from kubernetes.client import ApiClient, Configuration, CoreV1Api
    from kubernetes.config import load_kube_config

    configuration = Configuration()
    load_kube_config(  # type: ignore[no-untyped-call]
        config_file=str(kubeconfig), client_configuration=configuration
    )
    api: Any = CoreV1Api(ApiClient(configuration))
    pods: list[Any] = []
    following: str | None = None
    while following != "":
        page = api.list_pod_for_all_namespaces(limit=PAGE, **({"_continue": following} if following else {}))
        pods += page.items
        following = page.metadata._continue or ""
    told = watch.told()
    return told | summary(
        (pod.metadata.name, pod.spec.node_name, gpus)
        for pod in pods
        if pod.status.phase == "Running"
        and (gpus := sum(int((one.resources.limits or {}).get(GPU, 0)) for one in pod.spec.containers))
    )


def by_parsing_alone(kubeconfig: Path) -> Json:
    """A floor: a bare socket and orjson, of pods alone; nothing is kept but what is told here."""
    watch = Stopwatch()
    import orjson

    [cluster] = json.loads(kubeconfig.read_text())["clusters"]
    connection = HTTPConnection(cluster["cluster"]["server"].removeprefix("http://"))
    held: list[Held] = []
    following: str | None = ""
    while following is not None:
        connection.request("GET", f"{PODS}?limit={PAGE}{f'&continue={following}' if following else ''}")
        page = orjson.loads(connection.getresponse().read())
        held += _held(page["items"])
        following = page["metadata"].get("continue")
    return watch.told() | summary(held)


WAYS: Mapping[str, Callable[[Path], Json]] = {
    "inventory": by_the_inventory,
    "kept": by_what_is_kept,
    "sdk": by_the_sdk,
    "parsing": by_parsing_alone,
}
SAID = {
    "inventory": "inventory, all kinds and records",
    "kept": "inventory, its pods",
    "sdk": "the official client's models",
    "parsing": "parsing alone (orjson)",
}


def _held(pods: Iterable[Json]) -> list[Held]:
    return [
        (pod["metadata"]["name"], pod["spec"]["nodeName"], gpus)
        for pod in pods
        if pod["status"]["phase"] == "Running"
        and (gpus := sum(_limit(container) for container in pod["spec"].get("containers", ())))
    ]


def _limit(container: Json) -> int:
    return int(container.get("resources", {}).get("limits", {}).get(GPU, 0))


def summary(held: Iterable[Held]) -> Json:
    """How many pods, nodes and GPUs, and which in short."""
    all_of_them = sorted(held)
    return {
        "found": {
            "pods": len(all_of_them),
            "nodes": len({node for _, node, _ in all_of_them}),
            "gpus": sum(gpus for _, _, gpus in all_of_them),
            "which": sha256(json.dumps(all_of_them).encode()).hexdigest(),
        }
    }


def same(runs: Sequence[Mapping[str, Json]]) -> Json:
    """What all of them found."""
    found: list[Json] = [told["found"] for run in runs for told in run.values()]
    assert found[0]["pods"] > 0, "nothing was found"
    assert all(one == found[0] for one in found), found
    return found[0]


class Stopwatch:
    """Of a process that has done nothing yet."""

    def __init__(self) -> None:
        self._memory = memory_mb("VmRSS")
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def told(self) -> Json:
        """While whatever was kept is still held."""
        spent = {
            "whole": time.process_time(),
            "listing": time.process_time() - self._cpu,
            "wall": time.perf_counter() - self._wall,
        }
        gc.collect()
        return spent | {
            "kept_mb": memory_mb("VmRSS") - self._memory,
            "peak_mb": memory_mb("VmHWM") - self._memory,
        }


def memory_mb(which: str) -> float:
    """Resident memory of this process: `VmRSS` now, `VmHWM` at its peak."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which)]
    return int(line.split()[1]) / 1024


def client(way: str, kubeconfig: Path) -> Json:
    command = [sys.executable, "-m", "bench.kubernetes", "--list", way, "--kubeconfig", str(kubeconfig)]
    told = subprocess.run(command, cwd=Path(__file__).parent.parent, check=True, stdout=subprocess.PIPE)
    answer: Json = json.loads(told.stdout)
    return answer


# The recorded lists.


class Recorded:
    """The API server's answers. Nodes, pods and jobs are told several times, in pages; what else is asked for is passed
    on to the API server, and watches stay silent."""

    def __init__(self, cluster: Cluster, times: int) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._passed_on: dict[tuple[str, str], bytes] = {}
        self._pages = {path: self._told_again(path, times) for path in TOLD_AGAIN}
        self.pod_bytes = sum(map(len, self._pages[PODS]))
        self.pods = sum(len(json.loads(page)["items"]) for page in self._pages[PODS])

    def _told_again(self, path: str, times: int) -> list[bytes]:
        whole = self._cluster.http.get(path, timeout=300).json()
        texts = [json.dumps(item, separators=(",", ":")) for item in whole["items"]]
        items = [_another(text, number) for number in range(times) for text in texts]
        pages = []
        for start in range(0, len(items), PAGE):
            metadata = {"resourceVersion": whole["metadata"]["resourceVersion"]}
            if start + PAGE < len(items):
                metadata["continue"] = str(start // PAGE + 1)
            head = json.dumps({"kind": whole["kind"], "apiVersion": whole["apiVersion"], "metadata": metadata})
            pages.append(f'{head[:-1]},"items":[{",".join(items[start : start + PAGE])}]}}'.encode())
        return pages

    def answer(self, target: str, accept: str) -> bytes:
        asked = urlsplit(target)
        if asked.path in self._pages:
            return self._pages[asked.path][int(parse_qs(asked.query).get("continue", ["0"])[0])]
        with self._lock:
            if (target, accept) not in self._passed_on:
                told = self._cluster.http.get(target, headers={"Accept": accept})
                assert told.status_code == 200, told.text
                self._passed_on[target, accept] = told.content
            return self._passed_on[target, accept]

    def silence(self) -> None:
        """Of a watch, until nobody listens any more."""
        self._over.wait()

    @contextmanager
    def served(self) -> Iterator[str]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            self._over.set()
            server.shutdown()


UID = re.compile(r'(?<="uid":")[0-9a-f]{2}')


def _another(text: str, number: int) -> str:
    """The same object under another name and uid, belonging to others of the same number."""
    named = text.replace('"gpu-', f'"gpu-{number}-').replace('"train-', f'"train-{number}-')
    return UID.sub(f"{number:02x}", named)


def _handler(recorded: Recorded) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if "watch=true" in self.path:
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                recorded.silence()
                self.close_connection = True
                return
            body = recorded.answer(self.path, self.headers["Accept"] or "application/json")
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _kubeconfig(address: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bench",
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        "clusters": [{"name": "bench", "cluster": {"server": address}}],
        "users": [{"name": "bench", "user": {"token": "bench"}}],
    }


# Following.


def following(cluster: Cluster, namespace: str, changes: int) -> None:
    """From the sending of a patch to the object in memory, in an inventory that follows the whole cluster."""
    from providers.contract import BuildContext
    from providers.kubernetes import Config, build

    seen: list[float] = []
    heard = threading.Event()

    def changed() -> None:
        seen.append(time.perf_counter())
        heard.set()

    context = BuildContext(source=SOURCE, now=lambda: datetime.now(UTC), changed=changed)
    provider = build(Config(kubeconfig=str(cluster.kubeconfig)), context)
    assert provider.inventory is not None
    before = [record for record in provider.inventory.list().records if record.protections]
    draw = random.Random(7)
    names = draw.sample([job["metadata"]["name"] for job in cluster.all("PyTorchJob", namespace)], changes)
    lags, patches = [], []
    for name in names:
        heard.clear()
        began = time.perf_counter()
        cluster.patch("PyTorchJob", name, {"metadata": {"annotations": {PROTECT: "true"}}}, namespace)
        patches.append(time.perf_counter() - began)
        assert heard.wait(30), f"nothing was heard of {name}"
        lags.append(seen[-1] - began)
    assert len(seen) == changes, "one change, one word"
    after = {record.name for record in provider.inventory.list().records if record.protections}
    provider.close()
    assert not before, "of other times"
    assert after == set(names), "what was heard of is in memory"
    for name in names:
        cluster.patch("PyTorchJob", name, {"metadata": {"annotations": {PROTECT: None}}}, namespace)
    print(f"\nwatch, {changes} changes: from sending the patch to the object in memory {_percentiles(lags, 1000)} ms;")
    print(f"  the API server's answer to the patch {_percentiles(patches, 1000)} ms")


# Reacting.


@dataclass(frozen=True, kw_only=True)
class Reaction:
    """Seconds."""

    kubectl: float
    """From its start to its end."""
    since_start: float
    since_end: float


def reacting(cluster: Cluster, namespace: str, folder: Path, reactions: int) -> None:
    """From kubectl to the API of a service that follows the whole cluster, at times that are not the cycles'."""
    from tests.e2e.process import curfew

    environment = {"CURFEW_CYCLE_SECONDS": "60", "CURFEW_ALLOW_ENDPOINTS": "127.0.0.1"}
    with curfew(folder, **environment) as service:
        service.apply(DOCUMENTS.format(kubeconfig=cluster.kubeconfig))
        cycle = service.cycle()
        [told] = cycle["sources"]
        assert told["complete"], cycle
        assert cycle["error"] is None, cycle
        found = _workloads(service)
        draw = random.Random(7)
        chosen = draw.sample(sorted(found), reactions + 1)
        _react(cluster, namespace, service, chosen[0], found)  # kubectl asks which kinds there are, once
        service.cycle()
        measured = []
        cpu = _cpu_of(service.pid)
        first = len(_cycles(service))
        for name in chosen[1:]:
            time.sleep(draw.uniform(0, 8))
            measured.append(_react(cluster, namespace, service, name, found))
        cycles = _cycles(service)[: len(_cycles(service)) - first]
        early = [one for one in cycles if one["requested_by"] == f"source {SOURCE}"]
        assert early, "no cycle was brought forward"
        explained = json.dumps(service.get(f"/resources/{found[chosen[-1]]}/explain"))
        assert PROTECT in explained, explained
        each = (_cpu_of(service.pid) - cpu) / max(1, len(cycles))
    print(f"\nreaction, {len(found):,} workloads, a cycle a minute, {reactions} protections set by kubectl:")
    print(
        f"  decided anew {_percentiles([one.since_end for one in measured])} s after kubectl had ended, "
        f"{_percentiles([one.since_start for one in measured])} s after it was started (goal 1 s);"
    )
    print(f"  kubectl itself {_percentiles([one.kubectl for one in measured])} s;")
    steps = {
        step: statistics.median(entry["seconds"] for one in early for entry in one["steps"] if entry["step"] == step)
        for step in [entry["step"] for entry in early[0]["steps"]]
    }
    taken = ", ".join(f"{step} {seconds:.2f}" for step, seconds in steps.items())
    print(f"  {len(early)} of {len(cycles)} cycles were brought forward: {sum(steps.values()):.2f} s each ({taken}),")
    print(f"  {each:.2f} s CPU of the service for each cycle")


def _react(cluster: Cluster, namespace: str, service: Curfew, name: str, found: Mapping[str, str]) -> Reaction:
    began = time.perf_counter()
    cluster.kubectl("annotate", "pytorchjob", name, f"{PROTECT}=true", "-n", namespace)
    set_at = time.perf_counter()
    while not service.get(f"/resources/{found[name]}")["protected"]:
        assert time.perf_counter() - set_at < 90, f"{name} is not protected"
        time.sleep(0.02)
    seen_at = time.perf_counter()
    return Reaction(kubectl=set_at - began, since_start=seen_at - began, since_end=seen_at - set_at)


def _workloads(service: Curfew) -> dict[str, str]:
    """Name → id."""
    found: dict[str, str] = {}
    cursor: str | None = ""
    while cursor is not None:
        page = service.get("/resources", kind="workload", limit=500, **({"cursor": cursor} if cursor else {}))
        found |= {item["name"]: item["id"] for item in page["items"]}
        cursor = page["next"]
    return found


def _cycles(service: Curfew) -> list[Json]:
    """The latest first."""
    cycles: list[Json] = [one for one in service.get("/cycles", limit=500)["items"] if one["finished_at"]]
    return cycles


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _percentiles(seconds: Sequence[float], times: int = 1) -> str:
    cuts = statistics.quantiles(seconds, n=20, method="inclusive")
    return f"p50 {cuts[9] * times:.3g}, p95 {cuts[18] * times:.3g}"


if __name__ == "__main__":
    main()
