"""Reading only what changed comes to the same as reading everything, whatever changed."""

from __future__ import annotations

import copy
import time
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from providers.kubernetes import by_owner, translate
from providers.kubernetes.by_owner import ByOwner
from providers.kubernetes.workloads import workloads
from providers.records import ResourceRecord
from tests.providers.kubernetes.objects import (
    CLUSTER,
    NOW,
    Object,
    ago,
    cluster,
    deployment,
    namespace,
    node,
    owned_by,
    owner,
    pod,
    word_of,
)
from tests.providers.kubernetes.test_translate_workloads import EVERYTHING


def moved(obj: Object, to: str) -> Object:
    """The same in another namespace."""
    there = copy.deepcopy(obj)
    there["metadata"] |= {"namespace": to, "uid": f"{to}-{obj['metadata']['uid']}"}
    for reference in there["metadata"].get("ownerReferences", ()):
        reference["uid"] = f"{to}-{reference['uid']}"
    return there


ALL = [*EVERYTHING, *(moved(obj, "language") for obj in EVERYTHING if "namespace" in obj["metadata"])]
KEPT = {
    (word_of(obj), obj["metadata"]["uid"]): slimmed
    for obj in ALL
    if (slimmed := translate.slim(word_of(obj), obj)) is not None
}


def in_order(found: list[ResourceRecord] | tuple[ResourceRecord, ...]) -> list[ResourceRecord]:
    return sorted(found, key=lambda record: (record.ref.kind, record.ref.external_id, record.incarnation))


@settings(max_examples=30)
@given(
    looks=st.lists(
        st.tuples(
            st.sets(st.sampled_from(sorted(KEPT)), max_size=8),
            st.sets(st.sampled_from(sorted(KEPT)), max_size=3),
            st.sets(st.sampled_from(sorted({word for word, _ in KEPT})), max_size=1),
            st.sampled_from([CLUSTER, "another"]),
        ),
        max_size=3,
    )
)
def test_look_after_look_it_is_as_if_everything_were_read(
    looks: list[tuple[set[tuple[str, str]], set[tuple[str, str]], set[str], str]],
) -> None:
    """At each look some objects are away, some have changed, and a collection may not be listed."""
    remembering = ByOwner()
    current = dict(KEPT)
    for away, changed, unlisted, uid in looks:
        for key in changed:
            current[key] = copy.deepcopy(current[key])
            current[key]["metadata"].setdefault("labels", {})["changed"] = str(len(current))
        objects: dict[str, dict[str, Object]] = {word: {} for word in cluster().objects if word not in unlisted}
        for key, obj in current.items():
            if key not in away and key[0] not in unlisted:
                objects[key[0]][key[1]] = obj
        seen = translate.Cluster(uid=uid, objects=objects)

        found = remembering.records(seen, now=NOW)

        assert in_order(found) == in_order(translate.records(seen, now=NOW))


def test_what_names_an_owner_whose_name_another_has_is_read_with_that() -> None:
    left = pod("left", of=deployment(metadata={"uid": "of-the-one-before"}))
    seen = cluster(node(), namespace(), deployment(), pod("serve-0", of=deployment()), left)
    assert in_order(ByOwner().records(seen, now=NOW)) == in_order(translate.records(seen, now=NOW))


def test_whatever_owns_whatever_it_ends_soon() -> None:
    """Owners of owners of owners, and in the end the first one again."""
    ring = [owner("ReplicaSet", f"link-{number}") for number in range(4000)]
    for link, above in zip(ring, [*ring[1:], ring[0]], strict=True):
        link["metadata"] |= owned_by(above)
    seen = cluster(node(), namespace(), pod("p", of=ring[0]), *ring)
    began = time.monotonic()
    assert in_order(ByOwner().records(seen, now=NOW)) == in_order(translate.records(seen, now=NOW))
    assert time.monotonic() - began < 10


def test_only_what_something_changed_of_is_read_again() -> None:
    remembering = ByOwner()
    served = deployment()
    first = cluster(
        node(), node("gpu-2"), namespace(), namespace("language"),
        served, pod("one"), pod("two", on="gpu-2"), pod("three", namespace="language", on="gpu-2"),
    )  # fmt: skip
    objects = {word: dict(found) for word, found in first.objects.items()}
    remembering.records(first, now=NOW)
    changes = {
        "nothing": ([], 0),
        "a pod": ([pod("one", started=ago(minutes=1))], 1),
        "an owner": ([served | {"spec": served["spec"] | {"replicas": 7}}], 1),
        "a node that two pods are on": ([node("gpu-2", capacity={"nvidia.com/gpu": "4"})], 2),
        "a node nobody is on": ([node("gpu-3")], 0),
        "a namespace": ([namespace("language", labels={"team": "nlp"})], 1),
        "a new pod": ([pod("four")], 1),
    }
    for what, (changed, times) in changes.items():
        for obj in changed:
            slimmed = translate.slim(word_of(obj), obj)
            assert slimmed is not None
            objects[word_of(obj)][obj["metadata"]["uid"]] = slimmed
        with patch.object(by_owner, "workloads", wraps=workloads) as read:
            remembering.records(translate.Cluster(uid=CLUSTER, objects=objects), now=NOW)
        assert read.call_count == times, what
