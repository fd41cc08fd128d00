"""The checks that every run goes through, over every staged row."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.arrow.checks import Wrong, any_null, not_finite, unknown_class
from batchscore.arrow.values import shown_rows
from batchscore.contracts import Check, ScoringPlan, StagedOutput
from batchscore.errors import MAX_ITEMS, bounded
from batchscore.schema import is_float, label_column
from batchscore.validate.frames import PandasColumns
from batchscore.validate.keys import Words, duplicates, fits, key_words, without_null_keys
from batchscore.validate.staged import READ_THREADS, StagedTable


@dataclass
class _RowCheck:
    """Counts the rows that ``wrong`` marks in one column and keeps the first ten with their keys."""

    name: str
    column: str
    wrong: Wrong
    passed_text: str
    count: int = 0
    sample: list[str] = field(default_factory=list)

    def see(self, batch: pa.RecordBatch, keys: Sequence[str]) -> None:
        values = batch.column(self.column)
        marks = self.wrong(values)
        found = int(pc.sum(marks, min_count=0).as_py() or 0)
        if not found:
            return
        self.count += found
        wanted = MAX_ITEMS - len(self.sample)
        if wanted > 0:
            rows = batch.select([*dict.fromkeys((*keys, self.column))]).filter(marks).slice(0, wanted)
            self.sample.extend(_row_text(row, keys, self.column) for row in shown_rows(rows))

    def take(self, other: _RowCheck) -> None:
        """Counts what the same check found in later rows, too."""
        self.count += other.count
        self.sample.extend(other.sample[: MAX_ITEMS - len(self.sample)])

    def check(self) -> Check:
        observed = f"{self.count} rows" if self.count else self.passed_text
        return Check(self.name, self.count == 0, observed, self.count, tuple(self.sample))


def _row_text(row: dict[str, object], keys: Sequence[str], column: str) -> str:
    named = ", ".join(f"{key}={row[key]}" for key in keys if key != column)
    return bounded(f"{named}: {row[column]}" if named else str(row[column]))


@dataclass(frozen=True, slots=True)
class Looked:
    """What a pass over staged rows found.

    Attributes:
        rows: how many there were.
        checks: what is wrong with them.
        words: the numbers of their keys, batch by batch; None where they were not to be kept.
    """

    rows: int
    checks: list[_RowCheck]
    words: list[Words] | None


def look_at_rows(
    plan: ScoringPlan, output: StagedTable, memory_budget_bytes: int, beside: PandasColumns | None = None
) -> Looked:
    """One pass over the few columns that the checks need, several files at a time.

    Args:
        plan: what was to be scored.
        output: the staged rows.
        memory_budget_bytes: most memory that the keys may take.
        beside: is filled in the same pass.
    """
    keys = _keys(plan, output)
    keep_words = plan.keys_unique and bool(keys) and fits(sum(output.rows), memory_budget_bytes)
    with ThreadPoolExecutor(READ_THREADS) as pool:
        look = functools.partial(_looked_at, plan, keys, beside, keep_words=keep_words)
        parts = list(pool.map(look, *zip(*output.apart(), strict=True)))
    checks = _row_checks(plan, keys)
    for part in parts:
        for check, found in zip(checks, part.checks, strict=True):
            check.take(found)
    words = [words for part in parts for words in part.words or ()] if keep_words else None
    return Looked(sum(part.rows for part in parts), checks, words)


def _looked_at(
    plan: ScoringPlan,
    keys: Sequence[str],
    beside: PandasColumns | None,
    first: int,
    output: StagedTable,
    *,
    keep_words: bool,
) -> Looked:
    checks = _row_checks(plan, keys)
    others = beside.names if beside is not None else ()
    names = tuple(dict.fromkeys((*keys, *(check.column for check in checks), *others)))
    if not names:
        return Looked(sum(output.rows), checks, None)
    rows = 0
    words: list[Words] = []
    for batch in output.batches(names):
        for check in checks:
            check.see(batch, keys)
        if keep_words:
            words.append(key_words(without_null_keys(batch, keys), keys))
        if beside is not None:
            beside.take(first + rows, batch)
        rows += batch.num_rows
    return Looked(rows, checks, words if keep_words else None)


def check_rows(
    plan: ScoringPlan, staged: StagedOutput, output: StagedTable, looked: Looked, memory_budget_bytes: int
) -> tuple[Check, ...]:
    """Row counts, keys, predictions and classes."""
    keys = _keys(plan, output)
    judged = [_count_check(plan, staged, output, looked.rows), *(check.check() for check in looked.checks)]
    if plan.keys_unique and keys:
        judged.append(_unique_check(output, keys, memory_budget_bytes, looked.words))
    return tuple(judged)


def _keys(plan: ScoringPlan, output: StagedTable) -> tuple[str, ...]:
    return tuple(key for key in plan.task.keys if key in {column.name for column in output.columns})


def _count_check(plan: ScoringPlan, staged: StagedOutput, output: StagedTable, seen: int) -> Check:
    stated = sum(file.rows for file in staged.files)
    left_out = staged.rows_quarantined + staged.rows_filtered
    counts = {
        "read, not filtered and not quarantined": staged.rows_read - left_out,
        "staged": staged.rows_staged,
        "in the files by the tasks": stated,
        "in the files by their footers": sum(output.rows),
        "read back": seen,
    }
    planned = _planned_rows(plan)
    if planned >= 0:
        counts["planned, not filtered and not quarantined"] = planned - left_out
    wrong_files = [
        f"{file.path}: {rows} rows instead of {file.rows}"
        for file, rows in zip(output.files, output.rows, strict=True)
        if rows != file.rows
    ]
    passed = len(set(counts.values())) == 1 and not wrong_files
    observed = f"{seen} rows" if passed else ", ".join(f"{name}: {count}" for name, count in counts.items())
    spread = max(counts.values()) - min(counts.values())
    return Check("row_count_equals_input", passed, observed, spread, tuple(wrong_files[:MAX_ITEMS]))


def _planned_rows(plan: ScoringPlan) -> int:
    """Rows to score by the input's footers or its log; -1 where these do not tell, as of a view."""
    rows = [split.rows for task in plan.tasks for split in task]
    if not rows:  # Spark itself reads, and may pass over what it cannot
        return plan.expected_rows
    return sum(rows) if min(rows) >= 0 else -1


def _row_checks(plan: ScoringPlan, keys: Sequence[str]) -> list[_RowCheck]:
    checks = []
    if plan.keys_unique:
        checks += [_RowCheck(f"keys_not_null({key})", key, pc.is_null, "no nulls") for key in keys]
    outputs = [column for column in plan.task.columns if column.origin == "model"]
    for column in outputs:
        if is_float(column.type):
            checks.append(
                _RowCheck(f"predictions_finite({column.name})", column.name, not_finite, "all finite, no nulls")
            )
        else:
            checks.append(_RowCheck(f"predictions_not_null({column.name})", column.name, any_null, "no nulls"))
    label = label_column(outputs)
    if plan.model.classes and label is not None:
        known = unknown_class(plan.model.classes, label.type)
        text = f"within the {len(plan.model.classes)} known classes"
        checks.append(_RowCheck(f"classes_known({label.name})", label.name, known, text))
    return checks


def _unique_check(
    output: StagedTable, keys: Sequence[str], memory_budget_bytes: int, words: list[Words] | None
) -> Check:
    rows = sum(output.rows)
    found = duplicates(lambda: output.batches(keys), keys, rows, memory_budget_bytes, MAX_ITEMS, words=words)
    sample = []
    for values, count in found.keys:
        named = ", ".join(f"{key}={value}" for key, value in zip(keys, values, strict=True))
        sample.append(bounded(f"{named}: {count} rows"))
    observed = f"{found.rows} rows share their key with another" if found.rows else "all distinct"
    return Check(f"keys_unique({', '.join(keys)})", found.rows == 0, observed, found.rows, tuple(sample))
