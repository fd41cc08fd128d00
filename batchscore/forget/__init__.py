"""``batchscore forget``: erases rows from the predictions, the quarantine and what was written about them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from batchscore import amendments, publish, record
from batchscore.contracts import RunRecord
from batchscore.errors import BatchscoreError, InputError, SettingsError
from batchscore.forget.erase import Eraser, Erasure, Order
from batchscore.forget.keys import Keys, from_file, from_flags
from batchscore.forget.texts import Masker, mask_files
from batchscore.prepare import Moment, OnEvent, absolute
from batchscore.tables import Table, open_table

__all__ = ["Erasure", "Forgotten", "forget", "from_file", "from_flags"]

QUARANTINE_SUFFIX = "__quarantine"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was erased, or would be.

    Attributes:
        forget_id: the id of the erasure in the ledger; '' where nothing was done.
        by: who did it.
        dry_run: whether everything is still there.
        keys: how many keys were asked for, and how many of these were found.
        erasures: of the predictions, then of the quarantine where there is one.
        texts: files under the table whose text named a key.
        ledger: rows of the ledger whose text named a key, and its older files that still do.
        deleted: files of older versions that were deleted at once.
    """

    forget_id: str
    by: str
    dry_run: bool
    keys: tuple[int, int]
    erasures: tuple[Erasure, ...]
    texts: tuple[str, ...]
    ledger: record.MaskedLedger
    deleted: int = 0


def forget(
    table: str,
    rows: Sequence[Mapping[str, str]],
    *,
    dry_run: bool = False,
    now: bool = False,
    on_event: OnEvent = lambda _: None,
) -> Forgotten:
    """Erases the rows of some keys; what older versions hold of them stays until `retain`, or goes now.

    Args:
        table: path or URI of the prediction table.
        rows: column and value of each key, as text; all of the same columns.
        dry_run: only say what would be erased.
        now: delete files of older versions that hold such rows, too: these versions can then not be read any more.
        on_event: receives notices.

    Raises:
        SettingsError: a key does not fit the table, or batchscore may not write it.
        InputError: no table is there, or none of the keys in any of its versions.
        UnavailableError: storage could not be reached, or the table stayed busy.
    """
    started = time.perf_counter()
    if not rows:
        raise SettingsError("no key is named", hint="--key transaction_id=42, or --keys-file FILE")
    uri = absolute(table)
    moment, by = Moment.now(), amendments.operator_name()
    opened = publish.writable(uri)
    keys = Keys(rows, opened.columns)
    order = Order(keys, moment.run_id(), moment.iso(), by)
    places = [(opened, True), *((side, False) for side in _quarantine(uri, keys, on_event))]
    erasers = [Eraser(place, order, recorded=recorded) for place, recorded in places]
    erasures = tuple(eraser.preview() for eraser in erasers)
    found = frozenset(key for erasure in erasures for key in erasure.keys)
    if not found:
        raise InputError(
            f"no row of the table at {uri} has {'this key' if keys.count == 1 else 'one of these keys'}",
            found=", ".join(f"{name}={text}" for name, text in keys.texts[0].items()) if keys.count == 1 else None,
            hint="look at the spelling, and at the columns: `batchscore.read_predictions` shows rows",
        )
    if not dry_run:
        erasures = tuple(eraser.erase() for eraser in erasers)
    masker = Masker([*keys.texts, *rows])
    outcome = Forgotten(
        forget_id="" if dry_run else order.forget_id,
        by=by,
        dry_run=dry_run,
        keys=(keys.count, len(found)),
        erasures=erasures,
        texts=mask_files(uri, masker, dry_run=dry_run),
        ledger=record.mask(uri, masker.text, dry_run=dry_run),
    )
    if dry_run:
        return outcome
    if now:
        outcome = _without_remains(uri, outcome)
    _note(uri, outcome, moment, started, on_event)
    return outcome


def _quarantine(uri: str, keys: Keys, on_event: OnEvent) -> list[Table]:
    side = open_table(uri.rstrip("/") + QUARANTINE_SUFFIX)
    if side is None:
        return []
    missing = [name for name in keys.names if name not in {column.name for column in side.columns}]
    if missing:
        text = f"the quarantine has no column {', '.join(missing)}: nothing can be erased from it by this key"
        on_event({"event": "notice", "text": text})
        return []
    return [side]


def _without_remains(uri: str, outcome: Forgotten) -> Forgotten:
    """Deletes what older versions hold; the record of the erasure keeps them from becoming the table again."""
    deleted = 0
    for erasure in outcome.erasures:
        publish.delete_files(erasure.table, erasure.remains.files)
        deleted += len(erasure.remains.files)
    publish.delete_files(record.ledger_uri(uri), outcome.ledger.files)
    return replace(outcome, deleted=deleted + len(outcome.ledger.files))


def _note(uri: str, outcome: Forgotten, moment: Moment, started: float, on_event: OnEvent) -> None:
    """A row of the ledger; it says nothing of whose rows they were."""
    predictions = outcome.erasures[0]
    row = RunRecord(
        run_id=outcome.forget_id,
        state="forgotten",
        started_at=moment.iso(),
        ended_at=Moment.now().iso(),
        model_name="",
        model_version="",
        model_digest="",
        source_uri="",
        source_version=None,
        source_snapshot="",
        table=uri,
        table_version=predictions.version,
        mode="",
        units_published=len(predictions.units),
        units_live=0,
        rows_read=0,
        rows=0,
        engine="",
        runner="",
        seconds=round(time.perf_counter() - started, 3),
        exit_code=0,
        message=f"{sum(erasure.rows for erasure in outcome.erasures)} rows erased by {outcome.by}",
    )
    try:
        record.append(uri, row)
    except (BatchscoreError, OSError) as error:
        on_event({"event": "notice", "text": f"the ledger could not be written: {error}"})
