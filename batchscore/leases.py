"""Whose turn it is: a run gives way to one that is at work on the same units, waits for it, or takes its place.

This saves double work. It is no lock, and need not be one: the commit decides what is published.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import pyarrow as pa

from batchscore import faults, heartbeats, publish
from batchscore.contracts import RunOptions, ScoringPlan, UnitValues
from batchscore.errors import BatchscoreError, UnavailableError, listed, unit_text
from batchscore.heartbeats import Heartbeat, Process, Pulse, Watch
from batchscore.prepare import OnEvent

POLL_SECONDS = 0.5
NAMED_UNITS = 3


class Lease:
    """A run's turn at its units, from the plan to the end of the run.

    Args:
        options: whether to wait for others, or to take their place.
        on_event: receives notices.
        backfill: id of the backfill that the run is part of; its other runs have other dates, also where what a run
            scores is found while it scores.
        watch: judges other runs.
        sleep: waits, seconds.
    """

    def __init__(
        self,
        options: RunOptions,
        on_event: OnEvent,
        *,
        backfill: str = "",
        watch: Watch | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._options, self._on_event, self._sleep = options, on_event, sleep
        self._backfill = backfill
        self._watch = watch or Watch()
        self._waits_until = time.monotonic() + 60 * options.wait_minutes
        self._pulse: Pulse | None = None
        self._dead: dict[str, heartbeats.State] = {}

    def take(self, plan: ScoringPlan) -> bool:
        """Says that this run works on the plan's units, unless another one does.

        Returns:
            True where the turn is ours; False where another run has ended or was fenced meanwhile: plan again.

        Raises:
            UnavailableError: another run is at work on some of the units.
        """
        others = self._at_work(plan)
        if others:
            return self._give_way(plan, others)
        self._pulse = self._begin(plan)
        faults.reached("heartbeat.written")
        # Two runs that begin at once see nobody at first: of these the one with the later id gives way.
        late = [other for other in self._at_work(plan) if other.run_id < plan.run_id]
        if late:
            self.end()
            return self._give_way(plan, late)
        return True

    def clear(self, plan: ScoringPlan) -> None:
        """Removes what dead runs left under the table; what stands in the way of that is a notice."""
        if not self._dead:
            return
        try:
            removed = publish.clear(plan.target.uri, self._dead, by=f"cleaned up by run {plan.run_id}")
        except (BatchscoreError, OSError) as error:
            self._tell(f"what dead runs left could not be removed: {error}")
            return
        for left in removed:
            self._tell(f"run {left.run_id} had ended without a word: {left.said()}")

    def end(self) -> None:
        """Gives the turn up."""
        if self._pulse is not None:
            self._pulse.end()
            self._pulse = None
            faults.reached("heartbeat.removed")

    def _begin(self, plan: ScoringPlan) -> Pulse:
        first = Heartbeat.of_this_process(
            plan.run_id,
            started_at=plan.created_at,
            units=_units(plan),
            model=f"{plan.model.name}/{plan.model.version}",
            backfill=self._backfill,
        )
        trouble = "other runs cannot see that this one works, its heartbeat could not be written: {}"
        pulse = Pulse(plan.target.uri, first, lambda why: self._tell(trouble.format(why)))
        pulse.start()
        return pulse

    def _at_work(self, plan: ScoringPlan) -> list[Heartbeat]:
        """Runs that are alive, may publish, and mean some of the plan's units; watches those elsewhere for a while."""
        units = _units(plan)
        told = False
        while True:
            found = self._judged(plan)
            asked = {beat: state for beat, state in found.items() if beat.overlaps(units) and not self._is_beside(beat)}
            self._dead = {beat.run_id: state for beat, state in found.items() if state in ("gone", "silent")}
            unsure = [beat for beat, state in asked.items() if state == "unsure"]
            if not unsure:
                live = (beat for beat, state in asked.items() if state == "live")
                return [beat for beat in live if publish.may_publish(plan.target.uri, beat.run_id)]
            if not told:
                told = True
                self._tell(f"watching whether run {unsure[0].run_id}{_where(unsure[0])} still works")
            self._sleep(POLL_SECONDS)

    def _is_beside(self, beat: Heartbeat) -> bool:
        return bool(self._backfill) and beat.backfill == self._backfill

    def _judged(self, plan: ScoringPlan) -> dict[Heartbeat, heartbeats.State]:
        found: dict[Heartbeat, bytes] = {}
        with suppress(OSError, pa.ArrowException):  # who cannot be seen is not waited for: the commit decides
            found = heartbeats.read_all(plan.target.uri)
        return {beat: self._watch.judge(beat, data) for beat, data in found.items() if beat.run_id != plan.run_id}

    def _give_way(self, plan: ScoringPlan, others: Sequence[Heartbeat]) -> bool:
        if self._options.take_over:
            # The run that goes on is planned anew, under another id: who does it is named instead.
            by = f"taken over by a run{_at(Process.own(), heartbeats.user())}"
            for other in others:
                publish.fence(plan.target.uri, other.run_id, by)
                self._tell(f"run {other.run_id}{_where(other)} was fenced: it can no longer publish")
            return False
        if not self._options.wait_minutes:
            raise busy(others)
        self._tell(f"waiting for run {others[0].run_id}{_where(others[0])}")
        while others:
            if time.monotonic() >= self._waits_until:
                raise busy(others, f"waited {self._options.wait_minutes:g} minutes")
            self._sleep(POLL_SECONDS)
            others = self._at_work(plan)
        return False

    def _tell(self, text: str) -> None:
        self._on_event({"event": "notice", "text": text})


def _units(plan: ScoringPlan) -> tuple[UnitValues, ...] | None:
    """What a plan works on; None for the whole table, or where that is found while scoring."""
    if plan.mode == "replace" or not plan.units_known:
        return None
    return tuple(unit.values for unit in plan.to_score)


def busy(others: Sequence[Heartbeat], found: str | None = None) -> UnavailableError:
    """The error of a run whose units others are working on; it names them."""
    first = others[0]
    return UnavailableError(
        f"run {first.run_id} is working on these units",
        found=found,
        detail=[_said(other) for other in others],
        hint="--wait waits for it and scores what is left; --take-over keeps it from publishing and goes on",
    )


def _said(other: Heartbeat) -> str:
    since = f", since {other.started_at}" if other.started_at else ""
    model = f", model {other.model}" if other.model else ""
    units = "the whole table" if other.units is None else listed(map(unit_text, other.units), NAMED_UNITS)
    return f"run {other.run_id}{_where(other)}{since}{model}: {units}"


def _where(other: Heartbeat) -> str:
    return _at(other.process, other.user) if other.process.host else ""


def _at(process: Process, user: str) -> str:
    return f" on {process.host} (pid {process.pid}{f', user {user}' if user else ''})"
