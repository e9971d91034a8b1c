"""Sleep: conflicts are tagged, what belongs together is summarised, what is not needed goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from memory.episode import Owner
from memory.fact_index import Conflict, FactIndex
from memory.facts import Summary, summary_id
from memory.journal import Journal
from memory.summarise import Summarise
from memory.summary_log import Sleeper

# Aeon (arXiv 2601.15311): cosine 0.7, within 24 h; evicted under 0.35, if a summary covers it.
SAME_SUBJECT = 0.7
WITHIN = timedelta(hours=24)
MIN_CLUSTER = 3
MAX_CLUSTER = 32
EVICT_UNDER = 0.35
# P(keep) is the logistic of these, chosen by hand: what is two months old, was never recalled,
# is short and has a near twin comes to 0.3; one recall lifts it over the bar.
BIAS, RECENT, USED, UNIQUE, LONG, TEACHES = -1.6, 2.0, 1.5, 2.0, 0.8, 3.0
RECENT_DAYS = 30.0
LONG_WORDS = 60
BATCH = 200
NEIGHBOURS = 64
"""Episodes before and after one among which its nearest is looked for."""


@dataclass(frozen=True, slots=True)
class SleepSettings:
    """None is no limit."""

    ttl_days: int | None = None
    max_episodes: int | None = None


@dataclass(frozen=True, slots=True)
class OwnerSleep:
    """What sleep does, or would do, to one owner's memory. ``summarised`` are groups of episodes,
    ``expired``, ``evicted`` and ``capped`` are episodes that go."""

    owner: Owner
    conflicts: tuple[Conflict, ...] = ()
    summarised: tuple[tuple[str, ...], ...] = ()
    expired: tuple[str, ...] = ()
    evicted: tuple[str, ...] = ()
    capped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SleepReport:
    """``summariser`` says who made the summaries, by their number."""

    dry_run: bool
    owners: tuple[OwnerSleep, ...]
    summariser: dict[str, int] = field(default_factory=dict)


class Sleep:
    """One night. Each change is a transaction of the journal and is found from what is there, so
    that a sleep that was cut off goes on at the next; ``stopping`` ends it between two changes."""

    def __init__(
        self,
        journal: Journal,
        index: FactIndex,
        summarise: Summarise,
        settings: SleepSettings,
        *,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._journal = journal
        self._index = index
        self._summarise = summarise
        self._settings = settings
        self._stopping = stopping

    def run(
        self, *, dry_run: bool, now: datetime, progress: Callable[[int, int], None]
    ) -> SleepReport:
        """Sleeps, or says what it would do; ``progress`` gets (owners done, all)."""
        owners = self._journal.summaries.owners()
        surplus = self._surplus()
        slept = []
        made: dict[str, int] = {}
        for done, owner in enumerate(owners, start=1):
            if self._stopping():
                break
            plan = self._plan(owner, surplus, now)
            slept.append(plan if dry_run else self._apply(plan, now, made))
            progress(done, len(owners))
        return SleepReport(dry_run, tuple(one for one in slept if _does(one)), made)

    def _surplus(self) -> dict[str, int]:
        """How many episodes each tenant has over its cap."""
        most = self._settings.max_episodes
        if most is None:
            return {}
        counts = self._journal.summaries.counts()
        return {tenant: count - most for tenant, count in counts.items() if count > most}

    def _plan(self, owner: Owner, surplus: dict[str, int], now: datetime) -> OwnerSleep:
        # What is not decided yet would go without having taught anything.
        decided = self._journal.facts.learnt_up_to()
        sleepers = self._journal.summaries.sleepers(owner)
        expired = _expired(sleepers, self._settings.ttl_days, now)
        left = [one for one in sleepers if one.id not in expired]
        groups = clusters([one for one in left if not one.covered], now)
        grouped = {id_ for group in groups for id_ in group}
        scores = dict(zip((one.id for one in left), keep_scores(left, now), strict=True))
        covered = [one for one in left if one.covered or one.id in grouped]
        evicted = tuple(
            one.id for one in covered if one.seq <= decided and scores[one.id] < EVICT_UNDER
        )
        over = max(0, surplus.get(owner.tenant, 0) - len(expired) - len(evicted))
        rest = sorted(
            (one for one in left if one.id not in evicted),
            key=lambda one: (
                one.seq > decided,
                not one.covered and one.id not in grouped,
                scores[one.id],
            ),
        )
        capped = tuple(one.id for one in rest[:over])
        if owner.tenant in surplus:
            surplus[owner.tenant] -= len(expired) + len(evicted) + len(capped)
        conflicts = tuple(self._index.conflicts(owner))
        return OwnerSleep(owner, conflicts, groups, tuple(sorted(expired)), evicted, capped)

    def _apply(self, plan: OwnerSleep, now: datetime, made: dict[str, int]) -> OwnerSleep:
        owner = plan.owner
        self._journal.facts.tag_conflicts(
            owner, [(one.first, one.second) for one in plan.conflicts], now
        )
        for ids in _batches(plan.expired):
            self._journal.removals.delete(owner, ids)
        kept: list[tuple[str, ...]] = []
        for group in plan.summarised:
            if self._stopping():
                return replace(plan, summarised=tuple(kept), evicted=(), capped=())
            if self._keep_summary(owner, group, now, made):
                kept.append(group)
        # Only what is covered now: a summary may have failed.
        covered = {
            id_
            for ids in _batches(plan.evicted)
            for id_ in self._journal.summaries.covered(owner, ids)
        }
        evicted = tuple(one for one in plan.evicted if one in covered)
        for ids in _batches((*evicted, *plan.capped)):
            self._journal.removals.evict(owner, ids)
        return replace(plan, summarised=tuple(kept), evicted=evicted)

    def _keep_summary(
        self, owner: Owner, group: Sequence[str], now: datetime, made: dict[str, int]
    ) -> bool:
        found = self._journal.get(owner, group)
        episodes = sorted(found.values(), key=lambda one: one.created)
        if len(episodes) < len(group):
            return False
        text, made_by = self._summarise(episodes)
        if not text:
            return False
        summary = Summary(summary_id(group), owner, text, tuple(group), now)
        if not self._journal.summaries.keep(summary, made_by):
            return False
        made[made_by] = made.get(made_by, 0) + 1
        return True


def clusters(sleepers: Sequence[Sleeper], now: datetime) -> tuple[tuple[str, ...], ...]:
    """Groups of at least `MIN_CLUSTER` episodes on one subject within a day, each with a cosine of
    at least `SAME_SUBJECT` to the mean of the ones before; a day that goes on is left alone."""
    closed: list[list[str]] = []
    open_: list[tuple[datetime, NDArray[np.float32], list[str]]] = []
    for one in sorted(sleepers, key=lambda each: (each.created, each.seq)):
        if one.vector is None or one.created > now - WITHIN:
            continue
        closed += [ids for first, _, ids in open_ if one.created - first > WITHIN]
        open_ = [group for group in open_ if one.created - group[0] <= WITHIN]
        vector = one.vector.astype(np.float32)
        near = [float(total @ vector / np.linalg.norm(total)) for _, total, _ in open_]
        best = int(np.argmax(near)) if near else -1
        if best >= 0 and near[best] >= SAME_SUBJECT and len(open_[best][2]) < MAX_CLUSTER:
            first, total, ids = open_[best]
            open_[best] = (first, total + vector, [*ids, one.id])
        else:
            open_.append((one.created, vector, [one.id]))
    closed += [ids for _, _, ids in open_]
    return tuple(tuple(ids) for ids in closed if len(ids) >= MIN_CLUSTER)


def keep_scores(sleepers: Sequence[Sleeper], now: datetime) -> list[float]:
    """P(keep) of each, from how recent, used, unique and long it is, and whether a current fact
    rests on it."""
    return [
        _keep_score(one, nearest, now)
        for one, nearest in zip(sleepers, _nearest(sleepers), strict=True)
    ]


def _keep_score(one: Sleeper, nearest: float, now: datetime) -> float:
    days = max(0.0, (now - one.created) / timedelta(days=1))
    total = (
        BIAS
        + RECENT * math.exp(-days / RECENT_DAYS)
        + USED * math.log1p(one.uses)
        + UNIQUE * (1 - nearest)
        + LONG * min(1.0, one.words / LONG_WORDS)
        + TEACHES * one.teaches
    )
    return 1 / (1 + math.exp(-total))


def _nearest(sleepers: Sequence[Sleeper]) -> list[float]:
    """The cosine of each to the nearest of its neighbours in the journal; 0 without vectors."""
    found = []
    for place, one in enumerate(sleepers):
        around = [
            other.vector
            for other in sleepers[max(0, place - NEIGHBOURS) : place + NEIGHBOURS + 1]
            if other is not one and other.vector is not None
        ]
        if one.vector is None or not around:
            found.append(0.0)
            continue
        cosines = np.stack(around).astype(np.float32) @ one.vector.astype(np.float32)
        found.append(float(cosines.max()))
    return found


def _expired(sleepers: Sequence[Sleeper], ttl_days: int | None, now: datetime) -> set[str]:
    if ttl_days is None:
        return set()
    oldest = now - timedelta(days=ttl_days)
    return {one.id for one in sleepers if one.created < oldest}


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Small transactions: a turn that is written meanwhile waits for one at most."""
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]


def _does(plan: OwnerSleep) -> bool:
    return any((plan.conflicts, plan.summarised, plan.expired, plan.evicted, plan.capped))


def until(sleep_at: str, now: datetime) -> float:
    """Seconds from ``now`` (local, aware) to the next sleep: a time of day, or an interval."""
    if sleep_at[-1] in "hm":
        return float(sleep_at[:-1]) * (3600 if sleep_at[-1] == "h" else 60)
    hour, minute = map(int, sleep_at.split(":"))
    then = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if then <= now:
        then += timedelta(days=1)
    return (then.astimezone(UTC) - now.astimezone(UTC)).total_seconds()
