"""What several rules share: running GPUs counted in a row across a scope, oldest first, so that the newest are over."""

from __future__ import annotations

from sqlglot import exp

from policies.rules.rule import state_is


def gpus_where(condition: exp.Expr) -> exp.Expr:
    """The GPUs of a row if the condition holds for it, else none. Those of a machine that workloads hold are theirs."""
    none = exp.Literal.number(0)
    count = exp.Sub(
        this=exp.func("coalesce", exp.column("gpu_count"), none),
        expression=exp.func("coalesce", exp.column("requested_gpus"), none.copy()),
    )
    return exp.Case(ifs=[exp.If(this=condition, true=count)], default=exp.Literal.number(0))


def oldest_first() -> list[exp.Expr]:
    """Those that have run longest come first; ties are settled by id, so that the order of rows never matters."""
    return [
        exp.Ordered(this=exp.column("running_seconds"), desc=True, nulls_first=False),
        exp.Ordered(this=exp.column("resource_id"), desc=False, nulls_first=False),
    ]


def counted(
    amount: exp.Expr, *, per: str | None = None, order: list[exp.Expr] | None = None, before: bool = False
) -> exp.Expr:
    """The sum over the rows of the same `per`; with an order, over those up to this one (or before it)."""
    window = exp.Window(
        this=exp.Sum(this=amount),
        partition_by=[exp.column(per)] if per else [],
        order=exp.Order(expressions=order) if order else None,
        spec=exp.WindowSpec(
            kind="ROWS",
            start="UNBOUNDED",
            start_side="PRECEDING",
            end="1" if before else "CURRENT ROW",
            end_side="PRECEDING" if before else None,
        )
        if order
        else None,
    )
    return exp.func("coalesce", window, exp.Literal.number(0))


def running() -> exp.Expr:
    return state_is("running")
