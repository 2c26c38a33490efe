"""Two ranges of cost held against each other, group by group, as exact decimals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from app.core.exact import known_total
from app.core.restatements import Move, move_of
from app.core.rollup import CostFrame

Group = tuple[str, ...]
OTHER: Final = "Other"


@dataclass(frozen=True)
class GroupMove:
    """What a group cost before and after; None where that is not known, which is never 0. `other`: of all groups
    beyond the first ones together."""

    group: Group
    before: Decimal | None
    after: Decimal | None
    other: bool = False

    @property
    def move(self) -> Move | None:
        return move_of(self.before, self.after)


def group_moves(before: CostFrame, after: CostFrame, top: int | None = None) -> list[GroupMove]:
    """One for each group that has a charge on either side, largest change first, unknown changes last.

    Both frames are totals of the same question over their ranges. A group without a charge in a range with data cost
    0 there; in a range of which no day was ever ingested nothing is known of it. With `top`, the groups beyond so many
    are one more, so that all of them still add up.
    """
    known = [dict(zip(frame.groups, frame.group_totals, strict=True)) for frame in (before, after)]
    absent = [Decimal(0) if frame.days else None for frame in (before, after)]
    groups = known[0].keys() | known[1].keys()
    moves = [GroupMove(group, known[0].get(group, absent[0]), known[1].get(group, absent[1])) for group in groups]
    moves.sort(key=_rank)
    if top is None or len(moves) <= top or not after.query.group_by:
        return moves
    return [*moves[:top], _together(moves[top:], len(after.query.group_by))]


def _rank(found: GroupMove) -> tuple[bool, Decimal, Group]:
    move = found.move
    return move is None, -abs(move.amount) if move else Decimal(0), found.group


def _together(moves: Sequence[GroupMove], width: int) -> GroupMove:
    before, after = (known_total(getattr(move, side) for move in moves) for side in ("before", "after"))
    return GroupMove((OTHER,) * width, before, after, other=True)
