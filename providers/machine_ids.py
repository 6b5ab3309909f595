"""Brings the two names of one machine to one form: what Kubernetes calls it (`spec.providerID`, and labels like it),
and what its cloud lists it as. Names only; which resources there are is nobody's business here.
"""

from __future__ import annotations

import re

_GCE = re.compile(r"projects/([^/]+)/zones/([^/]+)/instances/([^/]+)$")


def machine_key(provider_id: str) -> str:
    """Of what Kubernetes calls a machine.

    `aws:///us-east-1a/i-0abc` → `i-0abc`; `gce://project/zone/name` → `project/zone/name`; Azure's is a path, and its
    case says nothing.
    """
    scheme, _, rest = provider_id.partition("://")
    return plain_key(rest.rpartition("/")[2] if scheme == "aws" else rest)


def listed_key(external_id: str) -> str:
    """Of what its cloud lists it as: `projects/p/zones/z/instances/n` → `p/z/n`, any other id as it is."""
    path = _GCE.search(external_id)
    return "/".join(path.groups()).lower() if path else plain_key(external_id)


def plain_key(external_id: str) -> str:
    """Of an id that is not in Kubernetes' form."""
    return external_id.strip("/").lower()
