"""Reading DescribeInstances from its bytes: the same records as by the SDK's parser, and as loud where that is."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from xml.sax.saxutils import escape

import botocore.loaders
import httpx
import pytest
from botocore.model import ServiceModel
from botocore.parsers import ResponseParserError, create_parser
from hypothesis import given
from hypothesis import strategies as st

from providers.aws import translate
from providers.aws.client import UNREADABLE
from providers.aws.reservations import DIGEST, Reader
from providers.aws.translate import Devices, MachineType
from providers.records import ResourceRecord
from tests.providers.aws.fleet import make_fleet

pytestmark = pytest.mark.filterwarnings("ignore:tzname")  # of the SDK's, over broken times

SHAPE = (
    ServiceModel(botocore.loaders.create_loader().load_service_model("ec2", "service-2"), "ec2")
    .operation_model("DescribeInstances")
    .output_shape
)
MACHINE = MachineType(devices=Devices(vendor="nvidia", model="L4", count=1), local_storage_gb=250)
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
INSTANCE = "<instanceId>i-0abc</instanceId><instanceType>g6.xlarge</instanceType>"


# The two ways.


def by_the_sdk(body: bytes, **instead: Any) -> dict[str, Any]:
    answer: dict[str, Any] = create_parser("ec2").parse({"status_code": 200, "headers": {}, "body": body}, SHAPE)
    return answer | instead


def by_us(body: bytes, known: Sequence[bytes] = ()) -> dict[str, Any]:
    response, found = {"body": body}, {}
    Reader(known)(response, found)
    return by_the_sdk(response["body"], **found)


def instances(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for reservation in answer.get("Reservations", ()) for one in reservation.get("Instances", ())]


def records(answer: Mapping[str, Any]) -> list[ResourceRecord]:
    return [
        translate.record(one, account="123456789012", region="us-east-1", machine=MACHINE) for one in instances(answer)
    ]


def cut(answer: Mapping[str, Any]) -> bool:
    """Was it read by us? What was left to the SDK has no digests."""
    return bool(answer.get("Reservations")) and all(DIGEST in one for one in answer["Reservations"])


def must_agree(body: bytes) -> None:
    """The same records and the same next page, and what is no XML is none.

    Numbers and times that are never looked at may be what they like: over those, the SDK fails alone.
    """
    try:
        official = by_the_sdk(body)
        expected = records(official)
    except ResponseParserError:
        with pytest.raises(ResponseParserError):
            by_us(body)
    except UNREADABLE:
        with suppress(*UNREADABLE):
            records(by_us(body))
    else:
        ours = by_us(body)
        assert records(ours) == expected
        assert ours.get("NextToken") == official.get("NextToken")
        assert ours["ResponseMetadata"] == official["ResponseMetadata"]


# What is read.


def a_reservation(*inside: str, number: int = 0) -> str:
    items = "".join(f"<item>{one}</item>" for one in inside)
    return f"<item><reservationId>r-{number}</reservationId><instancesSet>{items}</instancesSet></item>"


def a_page(*reservations: str, head: str = HEAD, more: str = "") -> bytes:
    inner = "".join(reservations)
    return (
        f"{head}<requestId>q</requestId><reservationSet>{inner}</reservationSet>{more}</DescribeInstancesResponse>"
    ).encode()


FULL = a_page(
    a_reservation(
        INSTANCE + "<instanceState><code>80</code><name>stopped</name></instanceState>"
        "<stateReason><code>Server.SpotInstanceShutdown</code><message>no capacity</message></stateReason>"
        "<launchTime>2026-11-01T08:00:00.000Z</launchTime>"
        "<placement><availabilityZone>us-east-1a</availabilityZone><groupName/></placement>"
        "<instanceLifecycle>spot</instanceLifecycle><rootDeviceType>ebs</rootDeviceType>"
        "<hibernationOptions><configured>true</configured></hibernationOptions>"
        "<operator><managed>true</managed><principal>eks.amazonaws.com</principal></operator>"
        "<tagSet><item><key>Name</key><value>trainer &amp; co</value></item>"
        "<item><key>empty</key><value/></item></tagSet>"
        "<networkInterfaceSet><item><attachment><attachTime>2026-10-01T08:00:00Z</attachTime></attachment></item>"
        "</networkInterfaceSet><blockDeviceMapping><item><ebs><attachTime>2026-10-02T08:00:00.000Z</attachTime></ebs>"
        "</item></blockDeviceMapping>",
        "<instanceId>i-0def</instanceId><instanceType>p5.48xlarge</instanceType>"
        "<capacityBlockId>cb-1</capacityBlockId><capacityReservationId>cr-1</capacityReservationId>",
    ),
    a_reservation("<instanceId>i-0fed</instanceId><instanceType>m5.large</instanceType>", number=1),
    more="<nextToken>next&amp;=</nextToken>",
)


def with_(elements: str) -> bytes:
    """A plain instance that says this too."""
    return a_page(a_reservation(INSTANCE + elements))


def tagged(key: str, value: str) -> bytes:
    return with_(f"<tagSet><item><key>{key}</key><value>{value}</value></item></tagSet>")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(FULL, id="everything that is looked at"),
        pytest.param(FULL.replace(b"><", b">\n    <"), id="on lines of their own"),
        pytest.param(FULL.replace(b"UTF-8", b"utf-8").replace(b"\n", b""), id="on one line"),
        pytest.param(FULL[FULL.index(b"<Desc") :], id="without a declaration"),
        pytest.param(a_page(a_reservation(INSTANCE)), id="hardly anything"),
        pytest.param(a_page(a_reservation()), id="a reservation without instances"),
        pytest.param(a_page("<item><reservationId>r-0</reservationId></item>"), id="one without the set"),
        pytest.param(a_page("<item><reservationId></reservationId></item>"), id="one without an id"),
        pytest.param(with_("<tomorrow><item><a>1</a></item></tomorrow>"), id="a new element"),
        pytest.param(tagged("Name", "überprüft ✓ 試験"), id="unicode"),
        pytest.param(tagged("a&lt;item&gt;", "&lt;reservationId&gt;&#x2713;&quot;&apos;&#10;"), id="entities"),
        pytest.param(tagged("why?", "a=b xml ns = ?"), id="signs that mean something elsewhere"),
        pytest.param(with_("<launchTime>2026-11-01T08:00:00+07:00</launchTime>"), id="a time zone"),
        pytest.param(with_("<operator/><placement/><tagSet/><instanceState/>"), id="empty elements"),
    ],
)
def test_is_read_as_the_sdk_reads(body: bytes) -> None:
    must_agree(body)
    assert cut(by_us(body))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(a_page(), id="nothing in it"),
        pytest.param(FULL.replace(b"<reservationSet>", b"<reservationSet><!-- hello -->"), id="a comment"),
        pytest.param(tagged("Name", "<![CDATA[<item><reservationId>]]>"), id="text that looks like tags"),
        pytest.param(tagged("Name", "<?php ?>"), id="an instruction"),
        pytest.param(tagged("Name", "xmlns="), id="a word that may bring a namespace"),
        pytest.param(
            FULL.replace(b"item>", b"e:item>").replace(b"xmlns=", b'xmlns:e="u" xmlns='), id="names with prefixes"
        ),
        pytest.param(with_("<e:operator/>"), id="a prefix that stands for nothing"),
        pytest.param(
            with_(2 * "<placement><availabilityZone>us-east-1a</availabilityZone></placement>"), id="a member twice"
        ),
        pytest.param(
            with_("<in><item><reservationId>r</reservationId></item></in>"), id="a reservation within an instance"
        ),
        pytest.param(
            FULL.replace(b"reservationSet>", b"reservationSet></a>").replace(
                b"<reservationSet></a>", b"<a><reservationSet>"
            ),
            id="the set where it does not belong",
        ),
        pytest.param(with_("<launchTime>yesterday</launchTime>"), id="a time that is none"),
        pytest.param(with_("<launchTime>2026-13-01T08:00:00Z</launchTime>"), id="a thirteenth month"),
        pytest.param(with_("<launchTime/>"), id="an empty time"),
        pytest.param(FULL[:-30], id="a frame without its end"),
        pytest.param(FULL[: len(FULL) // 2], id="half an answer"),
        pytest.param(FULL.replace(b"</instanceId>", b"", 1), id="a tag without its end"),
        pytest.param(FULL.replace(b"i-0abc", b"i-\x00"), id="a byte that XML does not have"),
        pytest.param(FULL.replace(b"i-0abc", b"i-\xff"), id="a byte that UTF-8 does not have"),
        pytest.param(FULL.replace(b"trainer", b"&trainer;"), id="an entity nobody defined"),
        pytest.param(FULL.replace(b"trainer", b"a & b"), id="a sign that was not escaped"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html><body>Sign in</body></html>", id="a page"),
        pytest.param(b"<item><reservationId></reservationSet>", id="its words in the wrong order"),
        pytest.param("<reservationSet>".encode("utf-16"), id="another encoding"),
    ],
)
def test_what_is_not_as_usual_is_left_to_the_sdk(body: bytes) -> None:
    must_agree(body)
    response, found = {"body": body}, {}
    Reader()(response, found)
    assert (response["body"], found) == (body, {})


ENTITIES = b'<!DOCTYPE r [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'


@pytest.mark.parametrize("value", ["plain", "&b;&b;&b;"])
def test_a_document_type_is_refused_before_anything_is_expanded(value: str) -> None:
    body = tagged("Name", value).replace(b"<DescribeInstancesResponse", ENTITIES + b"<DescribeInstancesResponse")
    assert instances(by_the_sdk(body)), "the SDK itself would read it"
    with pytest.raises(ResponseParserError, match="document type"):
        by_us(body)


def test_a_real_answer_over_http_is_read_as_the_sdk_reads(moto: str) -> None:
    make_fleet(moto)
    asked = {"Action": "DescribeInstances", "Version": "2016-11-15"}
    scope = "AWS4-HMAC-SHA256 Credential=testing/20261101/us-east-1/ec2/aws4_request"
    body = httpx.post(moto, data=asked, headers={"Authorization": scope}).content
    must_agree(body)
    assert cut(by_us(body))
    assert len(records(by_us(body))) == 14


# What did not change.


def test_what_is_known_is_not_read_again() -> None:
    first = by_us(FULL)["Reservations"]
    changed = FULL.replace(b"m5.large", b"m5.xlarge")
    again = by_us(changed, known=[one[DIGEST] for one in first])["Reservations"]
    assert [sorted(one) for one in again] == [[DIGEST], [DIGEST, "Instances"]]
    assert again[0] == {DIGEST: first[0][DIGEST]}
    assert instances({"Reservations": again})[0]["InstanceType"] == "m5.xlarge"


def test_of_what_is_of_no_interest_the_type_alone_is_read() -> None:
    found: dict[str, Any] = {}
    Reader(of_no_interest=lambda sku: sku == "p5.48xlarge")({"body": FULL}, found)
    accelerated, not_of_interest, other = instances(found)
    assert not_of_interest == {"InstanceType": "p5.48xlarge"}
    assert [accelerated, other] == [one for one in instances(by_us(FULL)) if one["InstanceType"] != "p5.48xlarge"]


@given(st.integers(0, len(FULL) - 1), st.integers(0, 255))
def test_a_change_by_a_byte_is_a_change(place: int, byte: int) -> None:
    changed = FULL[:place] + bytes([byte]) + FULL[place + 1 :]
    known = {one[DIGEST]: one for one in by_us(FULL)["Reservations"]}
    response, found = {"body": changed}, {}
    Reader(known)(response, found)
    read = [known[one[DIGEST]] | one for one in found.get("Reservations", ()) if one[DIGEST] in known]
    unread = [one for one in found.get("Reservations", ()) if one[DIGEST] not in known]
    if found and not unread:
        assert records({"Reservations": read}) == records(by_the_sdk(changed))


# Whatever comes.

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=8).map(
    escape
)
TIMES = st.one_of(
    st.datetimes().map(lambda time: time.isoformat() + "Z"),
    st.datetimes().map(lambda time: f"{time:%Y-%m-%dT%H:%M:%S}.000Z"),
    TEXT,
)
STATES = st.sampled_from(["running", "stopped", "shutting-down", "terminated", "tomorrow"])


def element(name: str, inside: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return inside.map(lambda text: f"<{name}>{text}</{name}>" if text else f"<{name}/>")


def structure(**members: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Some of these members, in any order, and now and then one that is not known."""
    known = {"tomorrow": TEXT, **members}
    return st.lists(st.sampled_from(sorted(known)), unique=True).flatmap(
        lambda chosen: st.tuples(*(element(name, known[name]) for name in chosen)).map("".join)
    )


def items(inside: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(element("item", inside), max_size=3).map("".join)


AN_INSTANCE = st.builds(
    "{}<instanceType>{}</instanceType>{}".format,
    element("instanceId", st.from_regex(r"i-[0-9a-f]{4}", fullmatch=True)),
    st.sampled_from(["g6.xlarge", "p5.48xlarge"]),
    structure(
        instanceState=structure(name=STATES),
        stateReason=structure(code=st.sampled_from(sorted(translate.BROUGHT_DOWN_BY)), message=TEXT),
        launchTime=TIMES,
        placement=structure(availabilityZone=TEXT, groupName=TEXT),
        instanceLifecycle=st.sampled_from(["spot", "scheduled", ""]),
        capacityBlockId=TEXT,
        capacityReservationId=TEXT,
        rootDeviceType=st.sampled_from(["ebs", "instance-store"]),
        hibernationOptions=structure(configured=st.sampled_from(["true", "false", "TRUE", ""])),
        operator=structure(managed=st.sampled_from(["true", "false"]), principal=TEXT),
        tagSet=items(st.builds("<key>{}</key><value>{}</value>".format, TEXT, TEXT)),
        networkInterfaceSet=items(structure(attachment=structure(attachTime=TIMES))),
        blockDeviceMapping=items(structure(ebs=structure(attachTime=TIMES))),
    ),
)
PAGES = st.lists(st.lists(AN_INSTANCE, max_size=3), max_size=3).map(
    lambda found: a_page(*(a_reservation(*inside, number=number) for number, inside in enumerate(found)))
)


@given(PAGES)
def test_whatever_ec2_says_is_read_as_the_sdk_reads(body: bytes) -> None:
    must_agree(body)


WRECKS = (
    *(b"", b"<", b">", b"&", b"]]>", b"<!--", b"\x01", b"\xc3", b"\xef\xbf\xbe", b"&#1;"),
    *(b"<item>", b"</item>", b"<reservationId>", b"</reservationSet>", b"</instancesSet>", b"<item><reservationId>"),
)


@given(
    PAGES | st.just(FULL),
    st.lists(
        st.tuples(
            st.integers(0, sys.maxsize),
            st.integers(0, 40),
            st.sampled_from(WRECKS) | st.binary(max_size=3),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_whatever_breaks_on_the_way_is_as_loud(body: bytes, breaks: list[tuple[int, int, bytes]]) -> None:
    for at, length, instead in breaks:
        place = at % len(body)
        body = body[:place] + instead + body[place + length :]
    must_agree(body)
