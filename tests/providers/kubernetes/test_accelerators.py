"""Names of accelerators, as everybody writes them: tables of what is said and what it means."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.kubernetes.accelerators import (
    Device,
    asked,
    asked_by_pod,
    dra_part,
    general_weight,
    machine_type,
    model,
    model_by_labels,
    profile_in,
    quantity,
    vendor_of,
)
from providers.kubernetes.owners import ALL, BY_KIND, COLLECTIONS, OWNERS, How
from providers.records import Verb
from tests.providers.kubernetes.objects import container

RESOURCES = {
    "amd.com/cpx_nps4": "amd",
    "amd.com/gpu": "amd",
    "aws.amazon.com/neuron": "aws",
    "aws.amazon.com/neuroncore": "aws",
    "aws.amazon.com/neurondevice": "aws",
    "cpu": None,
    "ephemeral-storage": None,
    "google.com/tpu": "google",
    "gpu.intel.com/i915": "intel",
    "gpu.intel.com/i915_monitoring": None,
    "gpu.intel.com/xe": "intel",
    "habana.ai/gaudi": "habana",
    "hugepages-2Mi": None,
    "mellanox.com/shared_hca_rdma": None,
    "nvidia.com/GA102GL_A10": "nvidia",
    "nvidia.com/NVIDIA_A10-24Q": "nvidia",
    "nvidia.com/a100": "nvidia",
    "nvidia.com/cx6dx_rdma": None,
    "nvidia.com/gpu": "nvidia",
    "nvidia.com/gpu.shared": "nvidia",
    "nvidia.com/gpucores": None,
    "nvidia.com/gpumem": None,
    "nvidia.com/gpumem-percentage": None,
    "nvidia.com/hostdev": None,
    "nvidia.com/mig-1g.10gb.me": "nvidia",
    "nvidia.com/mig-1g.5gb": "nvidia",
    "nvidia.com/mig-1g.5gb.shared": "nvidia",
    "qualcomm.com/qaic": "qualcomm",
    "vpc.amazonaws.com/efa": None,
}
"""Resource → whose accelerators it counts; None where it counts something else."""


@pytest.mark.parametrize("resource", RESOURCES)
def test_a_resource_says_whose_accelerators_it_counts(resource: str) -> None:
    assert vendor_of(resource) == RESOURCES[resource]


PROFILES = {
    "1c.3g.20gb": Fraction(1, 7),
    "1g.10gb": Fraction(1, 7),
    "1g.10gb+me": Fraction(1, 7),
    "1g.24gb": Fraction(1, 4),
    "1g.5gb": Fraction(1, 7),
    "1g.6gb": Fraction(1, 4),
    "2g.12gb": Fraction(1, 2),
    "2g.20gb": Fraction(2, 7),
    "3g.40gb": Fraction(3, 7),
    "4g.20gb": Fraction(4, 7),
    "4g.24gb": Fraction(1),
    "7g.80gb": Fraction(1),
    "0g.5gb": None,
    "9g.90gb": None,
    "all-balanced": None,
}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_mig_profile_is_a_part_of_a_gpu(profile: str) -> None:
    found = profile_in(profile)
    assert (found.part if found else None) == PROFILES[profile]
    if found is not None:
        assert general_weight(f"nvidia.com/mig-{profile}") == PROFILES[profile]


PRODUCTS = {
    "A100-SXM4-40GB": ("nvidia", "A100"),
    "AMD_Instinct_MI300X_OAM": ("amd", "MI300X"),
    "NVIDIA-A10": ("nvidia", "A10"),
    "NVIDIA-A100-PCIE-40GB-MIG-1g.5gb": ("nvidia", "A100"),
    "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb-SHARED": ("nvidia", "A100"),
    "NVIDIA-A100-SXM4-80GB": ("nvidia", "A100-80GB"),
    "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb": ("nvidia", "A100-80GB"),
    "NVIDIA-A10G": ("nvidia", "A10G"),
    "NVIDIA-B200": ("nvidia", "B200"),
    "NVIDIA-GH200-480GB": ("nvidia", "GH200"),
    "NVIDIA-GeForce-RTX-3080-Ti": ("nvidia", "RTX 3080 Ti"),
    "NVIDIA-GeForce-RTX-4090": ("nvidia", "RTX 4090"),
    "NVIDIA-H100-80GB-HBM3": ("nvidia", "H100"),
    "NVIDIA-H100-NVL": ("nvidia", "H100"),
    "NVIDIA-H200": ("nvidia", "H200"),
    "NVIDIA-L4-SHARED": ("nvidia", "L4"),
    "NVIDIA-L40S": ("nvidia", "L40S"),
    "NVIDIA-RTX-6000-Ada-Generation": ("nvidia", "RTX 6000 Ada"),
    "NVIDIA-RTX-A6000": ("nvidia", "RTX A6000"),
    "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition": ("nvidia", "RTX PRO 6000"),
    "Tesla-T4": ("nvidia", "T4"),
    "Tesla-V100-SXM2-32GB": ("nvidia", "V100"),
    "a100": ("nvidia", "A100"),
    "gaudi-hl-205": ("habana", "Gaudi"),
    "inferentia": ("aws", "Inferentia1"),
    "inferentia2": ("aws", "Inferentia2"),
    "nvidia-a100-80gb": ("nvidia", "A100-80GB"),
    "nvidia-h100-80gb": ("nvidia", "H100"),
    "nvidia-h100-mega-80gb": ("nvidia", "H100"),
    "nvidia-h200-141gb": ("nvidia", "H200"),
    "nvidia-tesla-a100": ("nvidia", "A100"),
    "nvidia-tesla-t4": ("nvidia", "T4"),
    "nvidia-tesla-v100": ("nvidia", "V100"),
    "radeon-pro-v520": ("amd", "Radeon Pro V520"),
    "t4g": ("nvidia", "T4G"),
    "tpu-v5-lite-podslice": ("google", "TPU v5e"),
    "tpu-v6e-slice": ("google", "TPU v6e"),
    "trainium": ("aws", "Trainium1"),
    "Quantum-9": None,
    "": None,
}
"""What labels say → the name that all clouds share."""


@pytest.mark.parametrize("said", PRODUCTS)
def test_a_model_has_one_name_whoever_says_it(said: str) -> None:
    assert model(said) == PRODUCTS[said]


def test_what_a_label_calls_plain_a100_is_told_by_its_memory() -> None:
    labels = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM", "nvidia.com/gpu.memory": "81920"}
    assert model_by_labels(labels) == ("nvidia", "A100-80GB")
    assert model_by_labels(labels | {"nvidia.com/gpu.memory": "40960"}) == ("nvidia", "A100")


def test_the_memory_of_a_part_does_not_tell_the_model() -> None:
    labels = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB-MIG-7g.40gb", "nvidia.com/gpu.memory": "99999"}
    assert model_by_labels(labels) == ("nvidia", "A100")


def test_a_product_that_nobody_knows_yet_is_shown_as_it_is_written() -> None:
    assert model_by_labels({"nvidia.com/gpu.product": "NVIDIA-R300-Rubin"}) == ("nvidia", "R300 Rubin")


TYPES = {
    "Standard_NC24ads_A100_v4": ("A100-80GB", 1),
    "Standard_ND96asr_v4": ("A100", 8),
    "Standard_ND96isr_H100_v5": ("H100", 8),
    "a2-highgpu-8g": ("A100", 8),
    "a2-ultragpu-4g": ("A100-80GB", 4),
    "a3-megagpu-8g": ("H100", 8),
    "ct5lp-hightpu-4t": ("TPU v5e", 4),
    "g2-standard-24": ("L4", 2),
    "g2-standard-99": ("L4", None),
    "p3dn.24xlarge": ("V100", 8),
    "p4de.24xlarge": ("A100-80GB", 8),
    "standard_nd40rs_v2": ("V100", 8),
    "trn1.32xlarge": ("Trainium1", 16),
    "m5.large": None,
    "n1-standard-32": None,
}


@pytest.mark.parametrize("name", TYPES)
def test_a_machine_type_tells_what_it_has(name: str) -> None:
    found = machine_type(name)
    assert ((found.model.name, found.count) if found else None) == TYPES[name]


DRA_NAMES = {
    "gpu-0": Fraction(1),
    "gpu-0-mig-1g5gb-19-0": Fraction(1, 7),
    "gpu-1-mig-3g20gb-9-4": Fraction(3, 7),
    "gpu-0-mig-19-4-1": Fraction(1, 7),
    "neuron-device-3": Fraction(1),
}


@pytest.mark.parametrize("name", DRA_NAMES)
def test_the_name_of_a_dra_device_tells_its_part(name: str) -> None:
    assert dra_part(name) == DRA_NAMES[name]


def test_the_profile_of_a_dra_device_is_trusted_more_than_its_name() -> None:
    assert dra_part("gpu-0-mig-19-4-1", "2g.10gb") == Fraction(2, 7)


CONTAINERS: dict[str, tuple[Any, dict[str, int]]] = {
    "requests and equal limits": (
        {"requests": {"nvidia.com/gpu": "2"}, "limits": {"nvidia.com/gpu": "2"}},
        {"nvidia.com/gpu": 2},
    ),
    "only limits": ({"limits": {"nvidia.com/gpu": 1}}, {"nvidia.com/gpu": 1}),
    "a request stands before its limit": (
        {"requests": {"amd.com/gpu": "1"}, "limits": {"amd.com/gpu": "2"}},
        {"amd.com/gpu": 1},
    ),
    "none at all": ({"requests": {"cpu": "4"}}, {}),
    "zero": ({"limits": {"nvidia.com/gpu": "0"}}, {}),
    "a chip and its cores are one": (
        {"limits": {"aws.amazon.com/neuron": "1", "aws.amazon.com/neuroncore": "2"}},
        {"aws.amazon.com/neuron": 1},
    ),
    "two names of a chip": (
        {"limits": {"aws.amazon.com/neuron": "1", "aws.amazon.com/neurondevice": "1"}},
        {"aws.amazon.com/neuron": 1},
    ),
    "nonsense": ({"limits": {"nvidia.com/gpu": "many"}, "requests": None}, {}),
    "nothing": (None, {}),
}


@pytest.mark.parametrize("case", CONTAINERS)
def test_what_a_container_asks_for(case: str) -> None:
    resources, expected = CONTAINERS[case]
    assert asked(resources) == {Device(name): count for name, count in expected.items()}


SIDECAR = {"restartPolicy": "Always"}
PODS: dict[str, tuple[dict[str, Any], int]] = {
    "containers add up": ({"containers": [container({"nvidia.com/gpu": 2}), container({"nvidia.com/gpu": 1})]}, 3),
    "an init container that wants less": (
        {"containers": [container({"nvidia.com/gpu": 2})], "initContainers": [container({"nvidia.com/gpu": 1})]},
        2,
    ),
    "an init container that wants more": (
        {"containers": [container({"nvidia.com/gpu": 2})], "initContainers": [container({"nvidia.com/gpu": 4})]},
        4,
    ),
    "a sidecar stays beside the containers": (
        {
            "containers": [container({"nvidia.com/gpu": 2})],
            "initContainers": [container({"nvidia.com/gpu": 1}, **SIDECAR)],
        },
        3,
    ),
    "an init container runs beside the sidecars started before it": (
        {
            "containers": [container({"nvidia.com/gpu": 1})],
            "initContainers": [container({"nvidia.com/gpu": 1}, **SIDECAR), container({"nvidia.com/gpu": 4})],
        },
        5,
    ),
    "and not beside those started after it": (
        {
            "containers": [container({"nvidia.com/gpu": 1})],
            "initContainers": [container({"nvidia.com/gpu": 4}), container({"nvidia.com/gpu": 1}, **SIDECAR)],
        },
        4,
    ),
    "overhead holds none": ({"containers": [container({"nvidia.com/gpu": 1})], "overhead": {"nvidia.com/gpu": "8"}}, 1),
}


@pytest.mark.parametrize("case", PODS)
def test_what_a_pod_holds_is_what_the_scheduler_counts(case: str) -> None:
    spec, expected = PODS[case]
    assert asked_by_pod(spec) == {Device("nvidia.com/gpu"): expected}


QUANTITIES = {"8": 8, 8: 8, "2k": 2000, "1Ki": 1024, "-1": 0, -1: 0, "0.5": 0, "8.0": 8, True: 0, None: 0, "": 0}


@pytest.mark.parametrize("value", QUANTITIES, ids=repr)
def test_a_quantity_is_a_whole_number_or_nothing(value: Any) -> None:
    assert quantity(value) == QUANTITIES[value]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(resources=anything, spec=anything, said=st.text(max_size=40))
def test_no_answer_is_strange_enough_to_fail(resources: Any, spec: Any, said: str) -> None:
    assert not asked(resources)
    assert not asked_by_pod(spec)
    assert machine_type(said) is None
    model(said)
    assert 0 < general_weight(said) <= 1
    assert 0 < dra_part(said) <= 1


# The table of owners.


def test_words_and_kinds_name_one_collection_each() -> None:
    assert len(COLLECTIONS) == len(BY_KIND) == len(ALL)
    assert len(OWNERS) == sum(collection.owner for collection in ALL)


@pytest.mark.parametrize("word", COLLECTIONS)
def test_whoever_is_stopped_by_a_field_names_it(word: str) -> None:
    collection = COLLECTIONS[word]
    by_field = collection.how not in {How.NONE, How.EVICT}
    assert bool(collection.field) == by_field
    assert collection.versions
    if collection.owner:
        assert collection.namespaced
        assert (Verb.STOP in collection.verbs) == (collection.how is not How.NONE)
