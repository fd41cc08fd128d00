"""Rows of a run that were erased since: scoring again gives them, and the table lacks them on purpose.

The records of erasures say how many rows of which run a unit lost, never which: whoever asked to be forgotten is not
named. So a count is excused only where the rows that are left are exactly those that an erasure left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from batchscore import amendments
from batchscore.contracts import RUN_COLUMN, Forgetting, ManifestUnit, UnitState, UnitValues
from batchscore.errors import unit_text
from batchscore.reproduce.published import Published


@dataclass(frozen=True, slots=True)
class Erasures:
    """The erasures that took rows of one run."""

    run_id: str
    records: tuple[Forgetting, ...] = ()

    @classmethod
    def of_run(cls, table: str, run_id: str) -> Erasures:
        """Those of a table.

        Raises:
            SetupError: a newer batchscore wrote one.
            UnavailableError: storage could not be read.
        """
        known = amendments.forgettings(table)
        return cls(run_id, tuple(record for record in known if any(unit.run_id == run_id for unit in record.units)))

    def lost(self, values: UnitValues, rows: int) -> int:
        """How many of its rows a unit lost, where ``rows`` are left; 0 where no erasure left so many."""
        state = UnitState(((self.run_id, rows),) if rows else ())
        before = amendments.Forgotten(self.records).as_published(values, state)
        return sum(count for run, count in before.runs if run == self.run_id) - rows

    def lost_rows(self, published: Published, units: Iterable[ManifestUnit]) -> dict[UnitValues, int]:
        """What each unit lost in a version of the table; units that lost nothing are absent."""
        found = {}
        for unit in units:
            if self.asked(unit.values):
                rows = sum(batch.num_rows for batch in published.batches(unit.values, [RUN_COLUMN]))
                found[unit.values] = self.lost(unit.values, rows)
        return {values: rows for values, rows in found.items() if rows}

    def asked(self, values: UnitValues) -> int:
        """How many of its rows erasures were to take from a unit, in whatever version."""
        units = [unit for record in self.records for unit in record.units]
        return sum(
            unit.rows_before - unit.rows_left for unit in units if (unit.values, unit.run_id) == (values, self.run_id)
        )


def erased_notes(lost: Mapping[UnitValues, int]) -> tuple[str, ...]:
    """What is said of rows that are not compared."""
    return tuple(
        f"{unit_text(values)}: {rows:,} {'row was' if rows == 1 else 'rows were'} erased since, and not compared"
        for values, rows in lost.items()
    )
