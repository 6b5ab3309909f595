"""A real Kubernetes cluster for tests, on loopback: etcd, API server and controller manager. There is no kubelet and no
scheduler: what they would say of nodes and pods is said here, when a test wants it said.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import ssl
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.databases import free_port
from tests.kubernetes.programs import Programs, program
from tests.waiting import soon

Manifest = dict[str, Any]

ADMIN = "a-cluster-token-for-tests"
CRDS = Path(__file__).parent / "crds"
RUNNING = (
    "CronJob",
    "Job",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "ReplicaSet",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
)
DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
PATCHES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
}

_numbers = itertools.count(1)


class Refused(AssertionError):
    """The API server said no: its HTTP code, and the whole answer."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text}")
        self.code = answer.status_code
        self.answer = answer


class NotFound(Refused):
    """404."""


class Cluster:
    """What tests say to it. Objects are named as kubectl shows them: kind, name, namespace; where several API groups
    have a kind of that name, the kind is written `group/version/Kind`."""

    def __init__(self, url: str, authority: Path, programs: Programs) -> None:
        self.url = url
        self.authority = authority
        self.programs = programs
        self.http = self.client(ADMIN)
        self.kubeconfig = self._kubeconfig_of("admin", ADMIN)
        self._paths: dict[str, tuple[str, str]] = {}

    # Objects

    def create(self, manifest: Manifest, namespace: str | None = None) -> Manifest:
        """Strictly: a field that Kubernetes does not know, or one that is there twice, is an error."""
        where = namespace or manifest["metadata"].get("namespace")
        kind = f"{manifest['apiVersion']}/{manifest['kind']}" if "apiVersion" in manifest else manifest["kind"]
        path, api_version = self._resource(kind)
        body = {"apiVersion": api_version, **manifest, "kind": manifest["kind"]}
        answer = self.http.post(_in(path, where), json=body, params={"fieldValidation": "Strict"})
        made = _told(answer)
        assert "Warning" not in answer.headers, answer.headers["Warning"]
        return made

    def get(self, kind: str, name: str, namespace: str | None = None) -> Manifest:
        return _told(self.http.get(self.path(kind, name, namespace)))

    def find(self, kind: str, name: str, namespace: str | None = None) -> Manifest | None:
        """None where there is none."""
        try:
            return self.get(kind, name, namespace)
        except NotFound:
            return None

    def all(self, kind: str, namespace: str | None = None, **query: str) -> list[Manifest]:
        """All of a kind, in a namespace or everywhere; `labelSelector=` and the like are passed on."""
        items: list[Manifest] = _told(self.http.get(self.path(kind, None, namespace), params=query))["items"]
        return items

    def patch(
        self, kind: str, name: str, body: Any, namespace: str | None = None, *, of: str = "", how: str = "merge"
    ) -> Manifest:
        """`of` is a subresource: `status`, `scale`."""
        path = "/".join(filter(None, (self.path(kind, name, namespace), of)))
        return _told(self.http.patch(path, content=json.dumps(body), headers={"Content-Type": PATCHES[how]}))

    def delete(self, kind: str, name: str, namespace: str | None = None, *, at_once: bool = False) -> None:
        """`at_once` as the kubelet does, when the containers are gone."""
        body = {"propagationPolicy": "Background", **({"gracePeriodSeconds": 0} if at_once else {})}
        _told(self.http.request("DELETE", self.path(kind, name, namespace), json=body))

    def path(self, kind: str, name: str | None = None, namespace: str | None = None) -> str:
        """Of an object, or of all of a kind."""
        path, _ = self._resource(kind)
        return "/".join(filter(None, (_in(path, namespace), name)))

    def _resource(self, kind: str) -> tuple[str, str]:
        """Path and API version, asked of the server; again when there is a new kind."""
        if kind not in self._paths:
            self._paths = self._discovered()
        assert kind in self._paths, f"the cluster knows no {kind}"
        return self._paths[kind]

    def _discovered(self) -> dict[str, tuple[str, str]]:
        found: dict[str, tuple[str, str]] = {}
        for root in ("/api", "/apis"):
            for group in _told(self.http.get(root, headers={"Accept": DISCOVERY}))["items"]:
                name = group["metadata"].get("name", "")
                for version in group["versions"]:
                    api_version = "/".join(filter(None, (name, version["version"])))
                    for resource in version.get("resources", ()):
                        inside = "/namespaces/{}" if resource["scope"] == "Namespaced" else ""
                        entry = (f"{root}/{api_version}{inside}/{resource['resource']}", api_version)
                        kind = resource["responseKind"]["kind"]
                        found.setdefault(kind, entry)
                        found.setdefault(f"{api_version}/{kind}", entry)
        return found

    # Namespaces and people

    def namespace(self, name: str | None = None, *, labels: Mapping[str, str] | None = None) -> str:
        """A new one, ready for pods; of a name that no other test has, unless one is given."""
        name = name or f"test-{next(_numbers)}"
        self.create({"kind": "Namespace", "metadata": {"name": name, "labels": dict(labels or {})}})
        soon(lambda: self.find("ServiceAccount", "default", name), f"{name} has its default service account")
        return name

    def service_account(self, namespace: str, name: str, *, rules: Sequence[Manifest] = ()) -> Path:
        """A kubeconfig of a service account; it is made, and may do what the rules of a cluster role say."""
        if self.find("ServiceAccount", name, namespace) is None:
            self.create({"kind": "ServiceAccount", "metadata": {"name": name}}, namespace)
        if rules:
            role = {"name": f"{namespace}-{name}"}
            self.create({"kind": "ClusterRole", "metadata": role, "rules": list(rules)})
            subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
            reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", **role}
            self.create({"kind": "ClusterRoleBinding", "metadata": role, "subjects": [subject], "roleRef": reference})
        return self._kubeconfig_of(f"{namespace}-{name}", self.token(namespace, name))

    def token(self, namespace: str, account: str) -> str:
        """By TokenRequest, as a pod gets its own."""
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        path = f"{self.path('ServiceAccount', account, namespace)}/token"
        token: str = _told(self.http.post(path, json=request))["status"]["token"]
        return token

    def client(self, token: str) -> httpx.Client:
        """An HTTP client that is whoever the token belongs to, to be closed by whoever asked for it."""
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"},
            verify=ssl.create_default_context(cafile=str(self.authority)),
            timeout=30,
        )

    def _kubeconfig_of(self, user: str, token: str) -> Path:
        authority = base64.b64encode(self.authority.read_bytes()).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "tests",
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": user}}],
            "clusters": [
                {"name": "tests", "cluster": {"server": self.url, "certificate-authority-data": authority}},
            ],
            "users": [{"name": user, "user": {"token": token}}],
        }
        path = self.programs.folder / f"{user}.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path

    def kubectl(
        self, *arguments: str | Path, kubeconfig: Path | None = None, stdin: str | None = None, fails: bool = False
    ) -> str:
        """What the real kubectl prints; with `fails`, what it complains of."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.programs.folder),
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
        }
        command = [program("kubectl"), *map(str, arguments)]
        done = subprocess.run(command, input=stdin, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode != 0) == fails, f"{' '.join(command[1:])}: {done.stdout}{done.stderr}"
        return done.stderr if fails else done.stdout

    # What kubelets and the scheduler would say

    def node(self, name: str | None = None, **shape: Any) -> str:
        """A ready one, of the shape that `gpu_node` takes."""
        made = name or f"node-{next(_numbers)}"
        self.register(gpu_node(made, **shape))
        return made

    def register(self, node: Manifest) -> None:
        """As a kubelet does; the taint that admission gives to what is new is taken off, as its controller would."""
        self.create(node)
        self.patch("Node", node["metadata"]["name"], {"spec": {"taints": node["spec"].get("taints")}})

    def bind(self, pod: str, namespace: str, node: str) -> None:
        """As the scheduler does."""
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": {"name": node}}
        _told(self.http.post(f"{self.path('Pod', pod, namespace)}/binding", json=body))

    def run(self, pod: str, namespace: str, *, since: datetime | None = None) -> Manifest:
        """As the kubelet does: its containers run and are ready."""
        spec = self.get("Pod", pod, namespace)["spec"]
        return self.patch("Pod", pod, {"status": running(spec, since or datetime.now(UTC))}, namespace, of="status")

    def settle(self, namespace: str, *, node: str) -> list[Manifest]:
        """A turn of scheduler and kubelet in a namespace: what is unbound goes to the node, what is new runs, what is
        to end is gone. The pods there are then."""
        for pod in self.all("Pod", namespace):
            try:
                self._settle(pod, namespace, node)
            except Refused as refused:
                if refused.code not in (404, 409):  # a controller was quicker: it is gone, or about to go
                    raise
        return self.all("Pod", namespace)

    def _settle(self, pod: Manifest, namespace: str, node: str) -> None:
        name, spec = pod["metadata"]["name"], pod["spec"]
        if "deletionTimestamp" in pod["metadata"]:
            self.delete("Pod", name, namespace, at_once=True)
        elif pod["status"]["phase"] == "Pending" and not spec.get("schedulingGates"):
            if "nodeName" not in spec:
                self.bind(name, namespace, node)
            self.run(name, namespace)

    def evict(self, pod: str, namespace: str) -> httpx.Response:
        """The answer: 201, or 429 when a PodDisruptionBudget is against it."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
        return self.http.post(f"{self.path('Pod', pod, namespace)}/eviction", json=body)

    # All of it

    def clear(self) -> None:
        """No nodes, and nothing that runs or would run anywhere: as on its first day, but for the namespaces."""
        custom = [crd["spec"]["names"]["kind"] for crd in self.all("CustomResourceDefinition")]
        kinds = [*custom, *RUNNING, "Pod", "Node"]
        while left := [(kind, item["metadata"]) for kind in kinds for item in self.all(kind)]:
            for kind, metadata in left:
                name, namespace = metadata["name"], metadata.get("namespace")
                with suppress(NotFound):
                    if metadata.get("finalizers"):
                        self.patch(kind, name, {"metadata": {"finalizers": None}}, namespace)
                    self.delete(kind, name, namespace, at_once=True)

    def install(self, manifests: Iterable[Manifest]) -> None:
        """CustomResourceDefinitions, until they are served."""
        made = [self.create(manifest)["spec"] for manifest in manifests]
        for path in [f"/apis/{of['group']}/{v['name']}/{of['names']['plural']}" for of in made for v in of["versions"]]:
            soon(lambda path=path: self.http.get(path).status_code == 200, f"{path} is served")  # type: ignore[misc]
        self._paths = {}


def gpu_node(
    name: str,
    *,
    gpus: int = 8,
    resource: str = "nvidia.com/gpu",
    allocatable: int | None = None,
    labels: Mapping[str, str] | None = None,
    provider_id: str | None = None,
    taints: Sequence[Manifest] = (),
) -> Manifest:
    """The manifest of a ready node with GPUs; fewer are `allocatable` than it has when some are broken."""
    room = {"cpu": "192", "memory": "2000Gi", "ephemeral-storage": "1000Gi", "pods": "250"}
    counts = {resource: str(gpus)} if gpus else {}
    spec: Manifest = {"taints": list(taints)} if taints else {}
    if provider_id is not None:
        spec["providerID"] = provider_id
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": spec,
        "status": {
            "capacity": room | counts,
            "allocatable": room | ({resource: str(gpus if allocatable is None else allocatable)} if gpus else {}),
            "conditions": [_condition("Ready", datetime.now(UTC), reason="KubeletReady")],
            "nodeInfo": dict.fromkeys(
                (
                    "machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion",
                    "kubeletVersion", "kubeProxyVersion", "operatingSystem", "architecture",
                ),
                "",
            ),
        },
    }  # fmt: skip


def running(spec: Manifest, since: datetime) -> Manifest:
    """The status of a pod whose containers run."""
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": True,
            "started": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": _instant(since)}},
        }
        for container in spec["containers"]
    ]
    conditions = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    return {
        "phase": "Running",
        "startTime": _instant(since),
        "conditions": [_condition(name, since) for name in conditions],
        "containerStatuses": containers,
    }


def _condition(name: str, since: datetime, *, reason: str = "") -> Manifest:
    return {"type": name, "status": "True", "lastTransitionTime": _instant(since), "reason": reason}


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _in(path: str, namespace: str | None) -> str:
    if namespace is None:
        return path.replace("/namespaces/{}", "")
    return path.format(namespace)


def _told(answer: httpx.Response) -> Manifest:
    if answer.is_error:
        raise (NotFound if answer.status_code == 404 else Refused)(answer)
    told: Manifest = answer.json()
    return told


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """One of its own, with the custom kinds of `crds/`; it takes a few seconds."""
    with ExitStack() as stack:
        programs = Programs()
        stack.callback(programs.close)
        cluster = _started(programs)
        stack.callback(cluster.http.close)
        cluster.install(crd for file in sorted(CRDS.glob("*.yaml")) for crd in yaml.safe_load_all(file.read_text()))
        yield cluster


def _started(programs: Programs) -> Cluster:
    folder = programs.folder
    store, peer, port = (f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}", free_port())
    key = folder / "accounts.key"
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    key.write_bytes(made.private_bytes(*plain))
    (folder / "tokens.csv").write_text(f"{ADMIN},admin,1,system:masters\n")
    of_etcd = {
        "data-dir": "etcd",
        "listen-client-urls": store,
        "advertise-client-urls": store,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
        "unsafe-no-fsync": "true",
    }
    of_apiserver = {
        "etcd-servers": store,
        "bind-address": "127.0.0.1",
        "secure-port": port,
        "cert-dir": "certificates",
        "token-auth-file": "tokens.csv",
        "service-account-key-file": key,
        "service-account-signing-key-file": key,
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-cluster-ip-range": "10.0.0.0/24",
        "authorization-mode": "RBAC",
        "allow-privileged": "true",
    }
    programs.start("etcd", of_etcd)
    programs.start("kube-apiserver", of_apiserver)
    authority = folder / "certificates" / "apiserver.crt"
    _while_they_run(programs, lambda: (folder / "certificates" / "apiserver.key").exists(), "it has its certificate")
    cluster = Cluster(f"https://127.0.0.1:{port}", authority, programs)
    of_controllers = {
        "kubeconfig": cluster.kubeconfig,
        "service-account-private-key-file": key,
        "root-ca-file": authority,
        "leader-elect": "false",
        "secure-port": 0,
        # No kubelet says that it lives; without these nobody minds.
        "controllers": "*,-node-lifecycle-controller,-taint-eviction-controller",
        "kube-api-qps": 500,
        "kube-api-burst": 1000,
        "horizontal-pod-autoscaler-sync-period": "1s",
    }
    programs.start("kube-controller-manager", of_controllers)
    ready = f"{cluster.url}/readyz"
    _while_they_run(programs, lambda: cluster.http.get(ready).status_code == 200, "the API server is ready")
    _while_they_run(
        programs, lambda: cluster.find("ServiceAccount", "default", "default"), "the controller manager does its work"
    )
    return cluster


def _while_they_run(programs: Programs, told: Callable[[], Any], what: str) -> None:
    def asked() -> Any:
        programs.check()
        return told()

    soon(asked, what, within=90)
