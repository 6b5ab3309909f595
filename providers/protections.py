"""Well-known tags → protections: by the words that Curfew and other tools of its kind have for "leave this alone".

Labels and annotations of clouds that cannot write such words, and a cloud's own locks, are that cloud's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from providers.records import Protection

PROTECTING_TAGS = ("curfew-protect", "karpenter.sh/do-not-disrupt", "downscaler/exclude", "downscaler/force-uptime")
"""Tags that protect by whatever value, short of `false`."""
UNTIL = "downscaler/exclude-until"


def tag_protections(tags: Mapping[str, str]) -> Iterable[Protection]:
    """What a machine's tags say."""
    for tag in PROTECTING_TAGS:
        if tag in tags and tags[tag].strip().lower() != "false":
            yield Protection(source=tag, sentence=f"its tag {tag} says {tags[tag]!r}")
    if UNTIL in tags:
        until = tags[UNTIL]
        yield Protection(source=UNTIL, sentence=f"its tag {UNTIL} says {until!r}", until=moment(until))
    if tags.get("maid_offhours", "").strip().lower() == "off":
        yield Protection(source="maid_offhours", sentence="its tag maid_offhours says 'off'")


def moment(text: str) -> datetime | None:
    """An RFC 3339 time; anything else protects without an end, as a typing error must not expose."""
    try:
        time = datetime.fromisoformat(text.strip())
        return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
