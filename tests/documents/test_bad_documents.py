"""Every kind of mistake in a document: where it is, what is wrong, and what was probably meant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from service import apply, files
from service.clock import SetClock
from service.documents import nearest_of
from service.files import Mistake, Refused
from service.gate import Gate
from service.settings import Settings
from service.store.database import Database
from tests.api.service_under_test import service_on
from tests.conftest import MONDAY

FILE = "policies/team.yaml"


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """A text, and the one mistake in it."""

    text: str
    line: int | None
    column: int | None = 1
    field: str
    says: str
    nearest: str | None = None


def policy(type_: str, *lines: str) -> str:
    """A policy of this type with these lines of its rule, from line 5 on."""
    return f"kind: policy\nname: p\ntype: {type_}\n{type_}:\n" + "".join(f"  {line}\n" for line in lines)


POLICY = "kind: policy\nname: p\ntype: idle\n"
SOURCE = "kind: source\nname: s\nprovider: aws\n"
PROJECT = "kind: project\nname: p\n"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
EXEMPTION = "kind: exemption\nname: e\nresources: [i-1]\n"

WRONG = {
    "a field that does not exist": Wrong(
        text=POLICY + "idle:\n  fro: 45m\n", line=5, column=3, field="idle.fro", says="no such field", nearest="for"
    ),
    "a field of the whole document that does not exist": Wrong(
        text=POLICY + "grase: 10m\n", line=4, field="grase", says="no such field", nearest="grace"
    ),
    "a field of the scope that does not exist": Wrong(
        text=POLICY + "scope: {project: [a]}\n",
        line=4,
        column=9,
        field="scope.project",
        says="no such field",
        nearest="projects",
    ),
    "a field of a provider that does not exist": Wrong(
        text=SOURCE + "regoins: all\n", line=4, field="regoins", says="no such field", nearest="regions"
    ),
    "a field of every source, misspelt": Wrong(
        text=SOURCE + "celing: warn\n", line=4, field="celing", says="no such field", nearest="ceiling"
    ),
    "a field inside of a list": Wrong(
        text=PROJECT + "match:\n  - tags: {a: b}\n  - namespace: [x]\n",
        line=5,
        column=5,
        field="match[1].namespace",
        says="no such field",
        nearest="namespaces",
    ),
    "no kind": Wrong(text="name: p\ntype: idle\n", line=1, field="kind", says="is missing; it is one of source"),
    "an unknown kind": Wrong(
        text="kind: polciy\nname: p\n", line=1, field="kind", says="no kind 'polciy'", nearest="policy"
    ),
    "no name": Wrong(text="kind: project\n", line=1, field="name", says="is missing"),
    "a name with capitals": Wrong(
        text="kind: project\nname: Vision\n", line=2, field="name", says="use lower case letters"
    ),
    "a policy's name with a space": Wrong(
        text="kind: policy\nname: idle gpus\ntype: idle\n", line=2, field="name", says="use lower case letters"
    ),
    "no policy type": Wrong(text="kind: policy\nname: p\n", line=1, field="type", says="is missing; a policy's type"),
    "an unknown policy type": Wrong(
        text="kind: policy\nname: p\ntype: idel\n", line=3, field="type", says="no policy type", nearest="idle"
    ),
    "an unknown mode": Wrong(
        text=POLICY + "mode: enforced\n",
        line=4,
        field="mode",
        says="is not one of observe, warn, enforce",
        nearest="enforce",
    ),
    "an unknown action": Wrong(
        text=POLICY + "action: stopp\n", line=4, field="action", says="is not one of notify, stop", nearest="stop"
    ),
    "an unknown kind of resource": Wrong(
        text=POLICY + "scope:\n  kinds:\n    - instance\n    - workloads\n",
        line=7,
        column=7,
        field="scope.kinds[1]",
        says="is not one of instance",
        nearest="workload",
    ),
    "an unknown loss": Wrong(
        text=POLICY + "accept_loss: [local_disk]\n",
        line=4,
        column=15,
        field="accept_loss[0]",
        says="is not one of",
        nearest="local_disks",
    ),
    "an unknown provider": Wrong(
        text="kind: source\nname: s\nprovider: awz\n",
        line=3,
        field="provider",
        says="there is no provider 'awz'",
        nearest="aws",
    ),
    "an unknown time zone": Wrong(
        text=PROJECT + "timezone: Asia/Ho_Chi_Min\n",
        line=3,
        field="timezone",
        says="is no time zone",
        nearest="Asia/Ho_Chi_Minh",
    ),
    "an unknown currency": Wrong(
        text=PROJECT + "currency: usd\n", line=3, field="currency", says="no ISO 4217 currency", nearest="USD"
    ),
    "a duration without its unit": Wrong(text=POLICY + "grace: 30\n", line=4, field="grace", says="with its unit"),
    "a duration that looks like a time": Wrong(
        text=POLICY + "grace: 12:30:00\n", line=4, field="grace", says="'12:30:00' is no duration"
    ),
    "a duration beyond all measure": Wrong(
        text=POLICY + "grace: 99999999999999d\n", line=4, field="grace", says="is no duration"
    ),
    "a share without its sign": Wrong(
        text=POLICY + "idle:\n  min_coverage: 90\n", line=5, column=3, field="idle.min_coverage", says="with its sign"
    ),
    "a number that is too large": Wrong(
        text=POLICY + "idle: {utilisation_below: 5}\n",
        line=4,
        column=8,
        field="idle.utilisation_below",
        says="should be less than or equal to 1",
    ),
    "a number nobody can count with": Wrong(
        text=POLICY + "idle: {busy_gpus_below: 99999999999999999999}\n",
        line=4,
        column=8,
        field="idle.busy_gpus_below",
        says="is no number",
    ),
    "not a number": Wrong(
        text=POLICY + "idle: {utilisation_below: .nan}\n",
        line=4,
        column=8,
        field="idle.utilisation_below",
        says="is no number",
    ),
    "an idle window of nothing": Wrong(
        text=POLICY + "idle: {for: 0s}\n", line=4, column=8, field="idle.for", says="longer than nothing"
    ),
    "one word where a list belongs": Wrong(
        text=POLICY + "scope:\n  projects: vision\n", line=5, column=3, field="scope.projects", says="must be a list"
    ),
    "an account number that YAML reads as a number": Wrong(
        text=PROJECT + "match:\n  - accounts: [123456789012]\n",
        line=4,
        column=16,
        field="match[0].accounts[0]",
        says='put it in quotes: "123456789012"',
    ),
    "a word where a mapping belongs": Wrong(
        text=POLICY + "scope: all\n", line=4, field="scope", says="must be a mapping of fields"
    ),
    "a match that claims everything": Wrong(
        text=PROJECT + "match: [{}]\n", line=3, column=9, field="match[0]", says="claims everything"
    ),
    "no mail address": Wrong(
        text=PROJECT + "owners: [vision-leads]\n", line=3, column=10, field="owners[0]", says="is no mail address"
    ),
    "a channel that is neither address nor URL": Wrong(
        text=PROJECT + "notify: [slack]\n", line=3, column=10, field="notify[0]", says="is no mail address"
    ),
    "an end without its offset": Wrong(
        text=EXEMPTION + "reason: demo day\nuntil: 2026-12-01T18:00:00\n",
        line=5,
        field="until",
        says="needs its offset",
    ),
    "an end that is a date only": Wrong(
        text=EXEMPTION + "reason: demo day\nuntil: 2026-12-01\n", line=5, field="until", says="needs its offset"
    ),
    "an exemption without its end": Wrong(
        text=EXEMPTION + "reason: demo day\n", line=1, field="until", says="is missing"
    ),
    "an exemption from everything": Wrong(
        text="kind: exemption\nname: e\nreason: demo day\nuntil: 2026-12-01T18:00:00Z\n",
        line=1,
        field="",
        says="an exemption names resources, projects or tags",
    ),
    "a condition over a fact that does not exist": Wrong(
        text=POLICY + "scope:\n  where: gpu_cout >= 1\n",
        line=5,
        column=3,
        field="scope.where",
        says="`gpu_cout` at 1:1 is no fact",
        nearest="gpu_count",
    ),
    "a condition that cannot be read": Wrong(
        text=POLICY + 'idle:\n  when: "max_power_watts <"\n', line=5, column=3, field="idle.when", says="at 1:"
    ),
    "a condition that turns unknown into a value": Wrong(
        text=POLICY + 'idle:\n  when: "coalesce(max_power_watts, 0) < 90"\n',
        line=5,
        column=3,
        field="idle.when",
        says="rests on telemetry",
    ),
    "an action that nothing in scope can take": Wrong(
        text=POLICY + "scope: {kinds: [node]}\naction: stop\n",
        line=5,
        field="action",
        says="node cannot take stop; possible here: notify",
    ),
    "an action of the cloud's for a group": Wrong(
        text=POLICY + "scope: {kinds: [node_group]}\naction: hibernate\n",
        line=5,
        field="action",
        says="node_group cannot take hibernate",
    ),
    "a group named beside a machine, and an action for machines only": Wrong(
        text=POLICY + "scope: {kinds: [instance, node_group]}\naction: terminate\n",
        line=5,
        field="action",
        says="node_group cannot take terminate; possible here: move_to_spot, notify, stop",
    ),
    "the rule of another type": Wrong(
        text=POLICY + "lifetime: {max: 72h}\n",
        line=4,
        field="lifetime",
        says="belongs to a policy of type lifetime, and this one is idle",
    ),
    "a ratio written as a share": Wrong(
        text=POLICY + "idle: {utilisation_below: 5%}\n",
        line=4,
        column=8,
        field="idle.utilisation_below",
        says="is written as a ratio here",
        nearest="0.05",
    ),
    "yes where a ratio belongs": Wrong(
        text=POLICY + "idle: {utilisation_below: true}\n",
        line=4,
        column=8,
        field="idle.utilisation_below",
        says="is no ratio; write a number from 0 to 1",
    ),
    "a region nobody has": Wrong(
        text=POLICY + "scope: {regions: [EU_West_1]}\n",
        line=4,
        column=19,
        field="scope.regions[0]",
        says="'EU_West_1' is no region",
        nearest="eu-west-1",
    ),
    "money that is none": Wrong(
        text=POLICY + "disruption_budget: {max_hourly_cost: lots}\n",
        line=4,
        column=21,
        field="disruption_budget.max_hourly_cost",
        says="'lots' is no amount of money",
    ),
    "money with a field that does not exist": Wrong(
        text=POLICY + "disruption_budget:\n  max_hourly_cost: {amount: 200, curency: USD}\n",
        line=5,
        column=34,
        field="disruption_budget.max_hourly_cost.curency",
        says="there is no such field",
        nearest="currency",
    ),
    "an approval that is not asked for": Wrong(
        text=POLICY + "approval: require\n", line=4, field="approval", says="is not one of", nearest="required"
    ),
    "more than all may be disturbed": Wrong(
        text=POLICY + "disruption_budget: {max: 1.5}\n",
        line=4,
        column=21,
        field="disruption_budget.max",
        says="1.5 is no share",
    ),
    "a rollout without its sign": Wrong(
        text=POLICY + "rollout: 5\n", line=4, field="rollout", says="5 is no share; write it with its sign"
    ),
    "a rollout to nobody": Wrong(
        text=POLICY + "rollout: 0%\n", line=4, field="rollout", says="a share of nothing is what mode: observe says"
    ),
    "a rollout that sinks": Wrong(
        text=POLICY + "rollout: {share: 25%, steps: [50%, 10%]}\n",
        line=4,
        column=23,
        field="rollout.steps",
        says="each must be larger than the one before, these are 25%, 50%, 10%",
    ),
    "a rollout with a field that does not exist": Wrong(
        text=POLICY + "rollout: {share: 5%, evry: 7d}\n",
        line=4,
        column=22,
        field="rollout.evry",
        says="there is no such field",
        nearest="every",
    ),
    "a provider that nobody has": Wrong(
        text=POLICY + "scope: {providers: [gcp, awz]}\n",
        line=4,
        column=26,
        field="scope.providers[1]",
        says="there is no provider 'awz'",
        nearest="aws",
    ),
    "a policy's channel that is neither address nor URL": Wrong(
        text=POLICY + "notify: [slack]\n", line=4, column=10, field="notify[0]", says="is no mail address"
    ),
    "a policy's channel of a kind that does not exist": Wrong(
        text=POLICY + "notify: ['slak://${S}']\n",
        line=4,
        column=10,
        field="notify[0]",
        says="slak:// is no channel that is allowed",
    ),
    "a channel in two lines": Wrong(
        text=PROJECT + 'notify: ["slack://a/b/c\\nx"]\n', line=3, column=10, field="notify[0]", says="no line breaks"
    ),
    "an address with a hidden character": Wrong(
        text=PROJECT + 'owners: ["a\\u202e@b.org"]\n', line=3, column=10, field="owners[0]", says="is no mail address"
    ),
    "a currency in small letters": Wrong(
        text=POLICY + "disruption_budget:\n  max_hourly_cost: {amount: 200, currency: usd}\n",
        line=5,
        column=34,
        field="disruption_budget.max_hourly_cost.currency",
        says="'usd' is no currency code of three capital letters",
        nearest="USD",
    ),
    "a currency nobody pays with": Wrong(
        text=POLICY + "disruption_budget:\n  max_hourly_cost: {amount: 200, currency: VMD}\n",
        line=5,
        column=34,
        field="disruption_budget.max_hourly_cost.currency",
        says="'VMD' is no ISO 4217 currency code",
        nearest="VND",
    ),
    "a truth where a tag's text belongs": Wrong(
        text=PROJECT + "match:\n  - tags: {gpu: true}\n",
        line=4,
        column=12,
        field="match[0].tags.gpu",
        says='put it in quotes: "true"',
    ),
    "nothing where a tag's text belongs": Wrong(
        text=PROJECT + "match:\n  - tags: {gpu: }\n",
        line=4,
        column=12,
        field="match[0].tags.gpu",
        says="must be a text",
    ),
    "hours that are unknown": Wrong(
        text=policy("schedule", 'on: "Mo-Fr 08:00-20:00; Sa unknown"'),
        line=5,
        column=3,
        field="schedule.on",
        says="`unknown` says neither on nor off",
    ),
    "public holidays of no country": Wrong(
        text=policy("schedule", 'on: "Mo-Fr 08:00-20:00; PH off"'),
        line=5,
        column=3,
        field="schedule.on",
        says="whose public holidays?",
    ),
    "the holidays of schools": Wrong(
        text=policy("schedule", 'on: "Mo-Fr 08:00-20:00; SH off"', "holidays: DE"),
        line=5,
        column=3,
        field="schedule.on",
        says="when schools have holidays is not known",
    ),
    "hours of the sun": Wrong(
        text=policy("schedule", 'on: "Mo-Fr sunrise-20:00"'),
        line=5,
        column=3,
        field="schedule.on",
        says="does not say where the sun stands",
    ),
    "hours as people write them": Wrong(
        text=policy("schedule", 'on: "Weekdays 8-20"'),
        line=5,
        column=3,
        field="schedule.on",
        says="is no opening hours",
        nearest="Mo-Fr 08:00-20:00",
    ),
    "hours that could mean two things": Wrong(
        text=policy("schedule", 'on: "Mo-Fr 9 to 5"'),
        line=5,
        column=3,
        field="schedule.on",
        says="write them like Mo-Fr 08:00-20:00",
    ),
    "a country's code in small letters": Wrong(
        text=policy("schedule", 'on: "Mo-Fr 08:00-20:00"', "holidays: vn"),
        line=6,
        column=3,
        field="schedule.holidays",
        says="is no country code of two capital letters",
        nearest="VN",
    ),
    "a country that is none": Wrong(
        text=policy("schedule", 'on: "Mo-Fr 08:00-20:00"', "holidays: XX"),
        line=6,
        column=3,
        field="schedule.holidays",
        says="no holidays are known for 'XX'",
    ),
    "a schedule of the hours off": Wrong(
        text=policy("schedule", "on: 24/7", "off: Sa"), line=6, column=3, field="schedule.off", says="no such field"
    ),
    "a schedule without its hours": Wrong(
        text="kind: policy\nname: p\ntype: schedule\n", line=1, field="schedule", says="is missing"
    ),
    "a lifetime of nothing": Wrong(
        text=policy("lifetime", "max: 0s"), line=5, column=3, field="lifetime.max", says="greater than 0"
    ),
    "a lifetime without its unit": Wrong(
        text=policy("lifetime", "max: 72"), line=5, column=3, field="lifetime.max", says="with its unit"
    ),
    "nowhere allowed": Wrong(
        text=policy("residency", "allowed_regions: []"),
        line=5,
        column=3,
        field="residency.allowed_regions",
        says="at least 1 item",
    ),
    "an allowed region in capitals": Wrong(
        text=policy("residency", "allowed_regions: [us-east-1, 'EU-*']"),
        line=5,
        column=32,
        field="residency.allowed_regions[1]",
        says="is no region",
        nearest="eu-*",
    ),
    "half a pattern": Wrong(
        text=policy("residency", "allowed_regions: ['eu-[west']"),
        line=5,
        column=21,
        field="residency.allowed_regions[0]",
        says="is no region",
    ),
    "a quota below nothing": Wrong(
        text=policy("quota", "max_gpus: -1"), line=5, column=3, field="quota.max_gpus", says="greater than or equal"
    ),
    "a quota that is no number": Wrong(
        text=policy("quota", "max_gpus: true"), line=5, column=3, field="quota.max_gpus", says="valid integer"
    ),
    "a quota for each of something else": Wrong(
        text=policy("quota", "max_gpus: 8", "per: projects"),
        line=6,
        column=3,
        field="quota.per",
        says="is not one of project, owner, gpu_model",
        nearest="project",
    ),
    "an on-demand share without its sign": Wrong(
        text=policy("spot", "allowed_on_demand: 10"),
        line=5,
        column=3,
        field="spot.allowed_on_demand",
        says="write it with its sign",
    ),
    "an on-demand share of more than all": Wrong(
        text=policy("spot", "allowed_on_demand: 110%"),
        line=5,
        column=3,
        field="spot.allowed_on_demand",
        says="is no share",
    ),
    "a budget policy without its budget": Wrong(
        text=policy("budget", "at: 90%"), line=4, field="budget.budget", says="is missing"
    ),
    "an order that is none": Wrong(
        text=policy("budget", "budget: monthly", "order: idlest_first"),
        line=6,
        column=3,
        field="budget.order",
        says="is not one of idle_first",
        nearest="idle_first",
    ),
    "an ownership of something else": Wrong(
        text=policy("ownership", "require: [project, onwer]"),
        line=5,
        column=22,
        field="ownership.require[1]",
        says="is not one of project, owner",
        nearest="owner",
    ),
    "an ownership that asks for nothing": Wrong(
        text=policy("ownership", "require: []"), line=5, column=3, field="ownership.require", says="at least 1 item"
    ),
    "an expression over a fact that does not exist": Wrong(
        text=policy("expression", "when: gpu_modl = 'H100'"),
        line=5,
        column=3,
        field="expression.when",
        says="`gpu_modl` at 1:1 is no fact",
        nearest="gpu_model",
    ),
    "an expression that compares money with text": Wrong(
        text=policy("expression", "when: hourly_cost > '50'"),
        line=5,
        column=3,
        field="expression.when",
        says="is a number, compared with text",
    ),
    "an expression that asks the database": Wrong(
        text=policy("expression", "when: gpu_count > (SELECT 1)"),
        line=5,
        column=3,
        field="expression.when",
        says="a sub-query at 1:21",
    ),
    "an expression that is none": Wrong(
        text="kind: policy\nname: p\ntype: expression\n", line=1, field="expression", says="is missing"
    ),
    "a spend budget's period that is none": Wrong(
        text=PROJECT + "spend_budgets:\n  - {name: m, period: monthly, amount: 5}\n",
        line=4,
        column=15,
        field="spend_budgets[0].period",
        says="is not one of month, quarter, total, range",
        nearest="month",
    ),
    "a spend budget's threshold without its sign": Wrong(
        text=PROJECT + "spend_budgets:\n  - {name: m, period: month, amount: 5, alert_at: [50]}\n",
        line=4,
        column=52,
        field="spend_budgets[0].alert_at[0]",
        says="write it with its sign",
    ),
    "two spend budgets of one name": Wrong(
        text=PROJECT + "spend_budgets:\n" + "  - {name: m, period: month, amount: 5}\n" * 2,
        line=3,
        field="spend_budgets",
        says="two spend budgets are called 'm'",
    ),
    "an endpoint that is not allowed": Wrong(
        text=SOURCE + "endpoint: http://127.0.0.1:5000\n",
        line=4,
        field="endpoint",
        says="add 127.0.0.1 to CURFEW_ALLOW_ENDPOINTS",
    ),
    "a source's own rule": Wrong(
        text=SOURCE + "external_id: abc\n", line=4, field="external_id", says="only used when a role is assumed"
    ),
    "a field written twice": Wrong(
        text=POLICY + "mode: warn\ngrace: 1h\nmode: enforce\n",
        line=6,
        field="mode",
        says="is written twice: in line 4 and in line 6",
    ),
    "a document written twice": Wrong(
        text=PROJECT + "---\n" + PROJECT, line=5, field="name", says=f"this project is already in {FILE}:2"
    ),
    "a list where a document belongs": Wrong(
        text="- kind: policy\n", line=1, field="", says="a document is a mapping of fields"
    ),
    "text that is no YAML": Wrong(
        text=POLICY + "scope: {projects: [a\ngrace: 1h\n", line=5, column=6, field="", says="this is no valid YAML"
    ),
    "a tab for indentation": Wrong(
        text=POLICY + "idle:\n\tfor: 45m\n", line=5, column=1, field="", says="this is no valid YAML"
    ),
    "an object of Python": Wrong(
        text=POLICY + "description: !!python/name:os.system x\n",
        line=4,
        column=14,
        field="description",
        says="is not supported",
    ),
    "an anchor within itself": Wrong(
        text="kind: policy\nname: p\nscope: &a {tags: *a}\n", line=3, column=8, field="", says="anchors and aliases"
    ),
    "lists in lists without end": Wrong(
        text="kind: policy\nname: " + "[" * 30_000, line=2, column=None, field="", says="nested deeper than 32"
    ),
    "mappings in mappings without end": Wrong(
        text="kind: policy\nname: " + "{a: " * 30_000, line=2, column=None, field="", says="nested deeper than 32"
    ),
    "keys in keys without end": Wrong(
        text="? " * 30_000, line=1, column=None, field="", says="nested deeper than 32"
    ),
    "more values than anybody would write": Wrong(
        text="a: [" + "x," * 300_000 + "]", line=1, column=None, field="", says="more than 100000 values"
    ),
    "a long text many times over": Wrong(
        text="a: &a " + "x" * 100_000 + "\nb: [" + "*a," * 1000 + "]\n",
        line=1,
        column=None,
        field="",
        says="characters; are anchors and aliases at play",
    ),
    "a number of many digits": Wrong(
        text=POLICY + "grace: 0x" + "f" * 5000 + "\n", line=4, field="grace", says="no number that can be counted with"
    ),
    "a number below all numbers": Wrong(
        text=POLICY + "grace: -.inf\n", line=4, field="grace", says="no number that can be counted with"
    ),
    "no number": Wrong(
        text=POLICY + "grace: .nan\n", line=4, field="grace", says="no number that can be counted with"
    ),
    "a few lines that stand for billions": Wrong(
        text=BOMB,
        line=1,
        column=None,
        field="",
        says="more than 100000 values",
    ),
}  # fmt: skip


def mistakes_in(text: str, **settings: object) -> tuple[Mistake, ...]:
    raws, mistakes = files.read_yaml(text, FILE)
    with pytest.raises(Refused) as refused:
        apply.check(Settings(**settings), raws, mistakes)  # type: ignore[arg-type]
    return refused.value.mistakes


MANY_MISTAKES = {
    "in many documents": "---\n".join(f"{PROJECT}timezone: Asia/Hanoi{n}\n" for n in range(2000)),
    "in one document": POLICY + "".join(f"grase{n}: 1h\n" for n in range(20_000)),
    "in one list": PROJECT + "owners: [" + "x," * 20_000 + "]\n",
    "in the YAML itself": PROJECT + "description: x\n" * 20_000,
    "in names that lead nowhere": POLICY + "scope: {projects: [" + ",".join(f"p{n}" for n in range(5000)) + "]}\n",
    "in names of documents": (PROJECT + "---\n") * 2000,
}


@pytest.mark.parametrize("case", MANY_MISTAKES)
def test_after_a_hundred_mistakes_nobody_reads_on(case: str, sqlite_url: str) -> None:
    database = Database(sqlite_url)
    raws, mistakes = files.read_yaml(MANY_MISTAKES[case], FILE)
    gate = Gate(now=MONDAY)
    with pytest.raises(Refused) as refused, database.reading() as session:
        apply.plan(session, apply.check(Settings(), raws, mistakes), set_name=None, prune=False, gate=gate)
    database.close()
    assert 100 <= len(refused.value.mistakes) <= 103


def test_a_word_that_is_longer_than_names_may_be_resembles_nothing() -> None:
    assert nearest_of("idel", ["idle"]) == "idle"
    assert nearest_of("idel" + "x" * 61, ["idle" + "x" * 61]) is None


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_named_with_its_place_and_the_nearest_right_thing(case: str) -> None:
    wrong = WRONG[case]
    (mistake,) = mistakes_in(wrong.text)
    assert (mistake.file, mistake.line) == (FILE, wrong.line), str(mistake)
    assert wrong.column is None or mistake.column == wrong.column, str(mistake)
    assert mistake.field == wrong.field, str(mistake)
    assert wrong.says in mistake.reason, str(mistake)
    assert mistake.nearest == wrong.nearest, str(mistake)


def test_of_documents_with_a_mistake_not_one_is_applied(sqlite_url: str, clock: SetClock, tmp_path: Path) -> None:
    database = Database(sqlite_url)
    with service_on(database, clock, tmp_path / "home") as api:
        for case, wrong in WRONG.items():
            files_ = [{"name": "good.yaml", "text": "kind: project\nname: good\n"}, {"name": FILE, "text": wrong.text}]
            answer = api.admin.post("/api/v1/apply", json={"files": files_})
            assert (answer.status_code, answer.json()["code"]) == (422, "InvalidDocuments"), case
            (error,) = answer.json()["errors"]
            assert (error["file"], error["line"], error["field"]) == (FILE, wrong.line, wrong.field), case
        for kind in ("sources", "projects", "policies", "exemptions"):
            assert api.admin.get(f"/api/v1/{kind}").json()["items"] == []
    database.close()


def test_the_sentence_reads_like_a_compilers() -> None:
    (mistake,) = mistakes_in("kind: policy\nname: idle-gpus\ntype: idle\nidle:\n    fro: 45m\n")
    assert str(mistake) == (
        "policies/team.yaml:5:5: policy 'idle-gpus', idle.fro: there is no such field; did you mean 'for'?"
    )


def test_all_mistakes_of_all_documents_are_told_at_once() -> None:
    text = (
        SOURCE
        + "regoins: all\nceiling: warm\nrole_arn: nonsense\n---\n"
        + POLICY
        + "mode: on\ngrace: 5\n---\nkind: x\n"
    )
    assert [(mistake.line, mistake.field) for mistake in mistakes_in(text)] == [
        (4, "regoins"),
        (5, "ceiling"),
        (6, "role_arn"),
        (11, "mode"),
        (12, "grace"),
        (14, "kind"),
    ]


def test_documents_before_broken_yaml_are_checked_too() -> None:
    fields = [mistake.field for mistake in mistakes_in(POLICY + "grase: 1h\n---\nkind: [\n")]
    assert sorted(fields) == ["", "grase"]


SECRETS_WRITTEN_OUT = {
    "a password of its own field": "password: hunter2",
    "a token": "bearer_token: abc",
    "a password in an URL": "proxy: https://me:hunter2@proxy.example.org",
    "a token where a secret's name belongs": "token_secret: eyJhbGciOi.hunter2.x",
    "a service account's key": 'credentials: \'{"type": "service_account", "private_key": "hunter2"}\'',
    "a key in PEM": 'credentials: "-----BEGIN PRIVATE KEY-----hunter2"',
}


@pytest.mark.parametrize("case", SECRETS_WRITTEN_OUT)
def test_a_secret_written_into_a_source_is_refused(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydantic import BaseModel

    from providers import simulated

    class Config(BaseModel):
        password: str = ""
        bearer_token: str = ""
        proxy: str = ""
        token_secret: str = ""
        credentials: str = ""

    monkeypatch.setattr(simulated, "Config", Config)
    source = "kind: source\nname: s\nprovider: simulated\n"
    (mistake,) = mistakes_in(source + SECRETS_WRITTEN_OUT[case] + "\n")
    assert mistake.line == 4
    assert "name it as ${NAME}" in mistake.reason
    assert "hunter2" not in str(mistake)
    for good in ("password: ${PROXY}", "token_secret: AZURE_TOKEN", "credentials: ${KEY}", "credentials: key.json"):
        raws, _ = files.read_yaml(f"{source}{good}\n", FILE)
        assert apply.check(Settings(), raws)


def test_the_accelerated_clock_refuses_every_source_that_is_not_simulated() -> None:
    (mistake,) = mistakes_in(SOURCE, demo_speed=60)
    assert (mistake.line, mistake.field) == (3, "provider")
    assert "simulated sources only" in mistake.reason


def test_an_endpoint_is_accepted_once_it_is_allowed() -> None:
    raws, mistakes = files.read_yaml(SOURCE + "endpoint: http://127.0.0.1:5000\n", FILE)
    assert apply.check(Settings(allow_endpoints=("127.0.0.0/8",)), raws, mistakes)
