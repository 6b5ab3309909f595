"""The literal table of every collection of objects that is listed, and how what owns pods is stopped.

What such objects mean is `translate`'s, asking for them `watch`'s, changing them `actuator`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from providers.records import Verb


class How(StrEnum):
    """In what way an object lets go of its GPUs, and takes them back."""

    SUSPEND = "suspend"
    """The boolean at `field` becomes true."""
    SCALE = "scale"
    """The number at `field` becomes 0, once nothing else sets it (HPA, KEDA)."""
    ANNOTATE = "annotate"
    """The annotation at `field` is set, to the time of the act."""
    MIN_REPLICAS = "min_replicas"
    """The lower bound at `field` becomes 0, and what runs is brought down to it."""
    KUEUE = "kueue"
    """The boolean at `field` becomes false: Kueue then suspends the job it governs."""
    EVICT = "evict"
    """Through the eviction API, which respects disruption budgets."""
    NONE = "none"
    """There is no way that leads back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """One kind of object, as the API server lists it."""

    group: str
    """`` for the core group."""
    plural: str
    kind: str
    versions: tuple[str, ...] = ("v1",)
    """Those whose fields we know, newest first; the first one that the server has is asked for."""
    namespaced: bool = True
    metadata_only: bool = False
    """Only its place in the chain of owners is of interest."""
    owner: bool = False
    """It can be the top of a chain of owners, and then is a workload."""
    how: How = How.NONE
    field: tuple[str, ...] = ()
    """The path of what `how` changes, from the object's root."""

    @property
    def word(self) -> str:
        """What the collection is called everywhere: `nodes`, `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def api_version(self, version: str) -> str:
        """As objects write it: `v1`, `apps/v1`."""
        return f"{self.group}/{version}" if self.group else version

    @property
    def verbs(self) -> frozenset[Verb]:
        """What may be asked of a workload of this kind. Deleting is possible always, and named only by policies."""
        return VERBS[self.how] | {Verb.TERMINATE}


VERBS: dict[How, frozenset[Verb]] = {
    How.SUSPEND: frozenset({Verb.STOP, Verb.SUSPEND}),
    How.SCALE: frozenset({Verb.STOP, Verb.SCALE_TO_ZERO}),
    How.ANNOTATE: frozenset({Verb.STOP}),
    How.MIN_REPLICAS: frozenset({Verb.STOP, Verb.SCALE_TO_ZERO}),
    How.KUEUE: frozenset({Verb.STOP, Verb.SUSPEND}),
    How.EVICT: frozenset({Verb.STOP}),
    How.NONE: frozenset(),
}

SPEC_SUSPEND = ("spec", "suspend")
SPEC_REPLICAS = ("spec", "replicas")
RUN_POLICY_SUSPEND = ("spec", "runPolicy", "suspend")
NOTEBOOK_STOPPED = "kubeflow-resource-stopped"


def _training_job(plural: str, kind: str, *versions: str) -> Collection:
    """The jobs of Kubeflow's training operator are all alike."""
    return Collection(
        group="kubeflow.org",
        plural=plural,
        kind=kind,
        versions=versions or ("v1",),
        owner=True,
        how=How.SUSPEND,
        field=RUN_POLICY_SUSPEND,
    )


ALL = (
    # where GPUs are, and who holds them
    Collection(group="", plural="nodes", kind="Node", namespaced=False),
    Collection(group="", plural="namespaces", kind="Namespace", namespaced=False),
    Collection(group="", plural="pods", kind="Pod", owner=True, how=How.EVICT),
    Collection(
        group="resource.k8s.io", plural="resourceclaims", kind="ResourceClaim", versions=("v1", "v1beta2", "v1beta1")
    ),
    Collection(
        group="resource.k8s.io",
        plural="resourceclaimtemplates",
        kind="ResourceClaimTemplate",
        versions=("v1", "v1beta2", "v1beta1"),
    ),
    Collection(
        group="resource.k8s.io",
        plural="resourceslices",
        kind="ResourceSlice",
        versions=("v1", "v1beta2", "v1beta1"),
        namespaced=False,
    ),
    # Kubernetes' own
    Collection(group="apps", plural="replicasets", kind="ReplicaSet", metadata_only=True),
    Collection(group="apps", plural="deployments", kind="Deployment", owner=True, how=How.SCALE, field=SPEC_REPLICAS),
    Collection(group="apps", plural="statefulsets", kind="StatefulSet", owner=True, how=How.SCALE, field=SPEC_REPLICAS),
    Collection(group="apps", plural="daemonsets", kind="DaemonSet", owner=True),
    Collection(group="batch", plural="jobs", kind="Job", owner=True, how=How.SUSPEND, field=SPEC_SUSPEND),
    Collection(group="batch", plural="cronjobs", kind="CronJob", owner=True, how=How.SUSPEND, field=SPEC_SUSPEND),
    # several pods as one
    Collection(
        group="jobset.x-k8s.io",
        plural="jobsets",
        kind="JobSet",
        versions=("v1", "v1alpha2"),
        owner=True,
        how=How.SUSPEND,
        field=SPEC_SUSPEND,
    ),
    Collection(
        group="leaderworkerset.x-k8s.io",
        plural="leaderworkersets",
        kind="LeaderWorkerSet",
        owner=True,
        how=How.SCALE,
        field=SPEC_REPLICAS,
    ),
    # Ray
    Collection(
        group="ray.io",
        plural="rayclusters",
        kind="RayCluster",
        versions=("v1", "v1alpha1"),
        owner=True,
        how=How.SUSPEND,
        field=SPEC_SUSPEND,
    ),
    Collection(
        group="ray.io",
        plural="rayjobs",
        kind="RayJob",
        versions=("v1", "v1alpha1"),
        owner=True,
        how=How.SUSPEND,
        field=SPEC_SUSPEND,
    ),
    Collection(group="ray.io", plural="rayservices", kind="RayService", versions=("v1", "v1alpha1"), owner=True),
    # Kubeflow
    _training_job("pytorchjobs", "PyTorchJob"),
    _training_job("mpijobs", "MPIJob", "v2beta1", "v1"),
    _training_job("tfjobs", "TFJob"),
    _training_job("xgboostjobs", "XGBoostJob"),
    _training_job("paddlejobs", "PaddleJob"),
    _training_job("jaxjobs", "JAXJob"),
    Collection(
        group="trainer.kubeflow.org",
        plural="trainjobs",
        kind="TrainJob",
        versions=("v2alpha1", "v1alpha1"),
        owner=True,
        how=How.SUSPEND,
        field=SPEC_SUSPEND,
    ),
    Collection(
        group="kubeflow.org",
        plural="notebooks",
        kind="Notebook",
        versions=("v1", "v1beta1", "v1alpha1"),
        owner=True,
        how=How.ANNOTATE,
        field=("metadata", "annotations", NOTEBOOK_STOPPED),
    ),
    # inference servers
    Collection(
        group="serving.kserve.io",
        plural="inferenceservices",
        kind="InferenceService",
        versions=("v1beta1",),
        owner=True,
        how=How.MIN_REPLICAS,
        field=("spec", "predictor", "minReplicas"),
    ),
    # between an InferenceService and its pods where KServe runs on Knative
    Collection(group="serving.knative.dev", plural="services", kind="Service", metadata_only=True),
    Collection(group="serving.knative.dev", plural="configurations", kind="Configuration", metadata_only=True),
    Collection(group="serving.knative.dev", plural="revisions", kind="Revision", metadata_only=True),
    # who else sets how many pods there are
    Collection(
        group="kueue.x-k8s.io",
        plural="workloads",
        kind="Workload",
        versions=("v1beta2", "v1beta1"),
        how=How.KUEUE,
        field=("spec", "active"),
    ),
    Collection(group="keda.sh", plural="scaledobjects", kind="ScaledObject", versions=("v1alpha1",)),
    Collection(
        group="autoscaling", plural="horizontalpodautoscalers", kind="HorizontalPodAutoscaler", versions=("v2",)
    ),
)

COLLECTIONS: dict[str, Collection] = {collection.word: collection for collection in ALL}
"""Everything that is listed, by its word."""

OWNERS: dict[str, Collection] = {collection.kind: collection for collection in ALL if collection.owner}
"""The kinds of workload we know, by the kind in `namespace/Kind/name`: no two of them have the same."""


def by_kind(api_version: str, kind: str) -> Collection | None:
    """The collection of an object as references name it; its version does not matter, the group does."""
    return BY_KIND.get((api_version.rpartition("/")[0], kind))


BY_KIND = {(collection.group, collection.kind): collection for collection in ALL}
