"""Transactions made of steps; each step returns what it read. `support/registers.py` has the model of them."""

from typing import Any

from headwater import ApplicationError, Id, MutationCtx, QueryCtx, mutation, query

from .schema import Register, Slot


def register_of(ctx: QueryCtx | MutationCtx, key: int, register: Id[Register] | None) -> Register | None:
    return ctx.db.query(Register.by_key, key=key).first() if register is None else ctx.db.get(register)


def slots_in(ctx: QueryCtx | MutationCtx, group: int, lo: int, hi: int, limit: int | None) -> list[Slot]:
    found = ctx.db.query(Slot.by_place, group=group).range(Slot.place).gte(lo).lt(hi)
    return found.collect() if limit is None else found.take(limit)


def shown(slots: list[Slot]) -> list[list[int]]:
    return [[slot.item, slot.version, slot.place] for slot in slots]


def read_step(ctx: QueryCtx | MutationCtx, name: str, *words: Any) -> Any:
    match name, words:
        case "read", (key, known):
            register = register_of(ctx, key, known)
            return register.items if register else []
        case "scan", (lo, hi):
            found = ctx.db.query(Register.by_key).range(Register.key).gte(lo).lt(hi)
            return [[register.key, register.items] for register in found]
        case "count", (group, lo, hi, limit):
            return shown(slots_in(ctx, group, lo, hi, limit))
    raise ApplicationError(f"no such step: {name}")


def write_step(ctx: MutationCtx, name: str, *words: Any) -> Any:
    match name, words:
        case "append", (key, known, value):
            register = register_of(ctx, key, known)
            if register is None:
                return [ctx.db.insert(Register(key=key, items=[value])), []]
            ctx.db.patch(register.id, items=[*register.items, value])
            return [register.id, register.items]
        case "claim", (group, lo, hi, count, item, place):
            found = slots_in(ctx, group, lo, hi, count)
            if len(found) < count:
                ctx.db.insert(Slot(item=item, version=0, group=group, place=place))
            return shown(found)
        case "insert", (group, item, place):
            ctx.db.insert(Slot(item=item, version=0, group=group, place=place))
            return None
        case "move", (group, lo, hi, to_group, to_place):
            found = slots_in(ctx, group, lo, hi, 1)
            for slot in found:
                ctx.db.patch(slot.id, version=slot.version + 1, group=to_group, place=to_place)
            return shown(found)
        case "drop", (group, lo, hi):
            found = slots_in(ctx, group, lo, hi, 1)
            for slot in found:
                ctx.db.delete(slot.id)
            return shown(found)
        case "fail", ():
            raise ApplicationError("as asked")
    return read_step(ctx, name, *words)


@mutation
def change(ctx: MutationCtx, steps: list[Any]) -> list[Any]:
    return [write_step(ctx, *step) for step in steps]


@query
def look(ctx: QueryCtx, steps: list[Any]) -> list[Any]:
    return [read_step(ctx, *step) for step in steps]
