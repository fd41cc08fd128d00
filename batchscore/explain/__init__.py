"""One score, and everything that made it: `batchscore explain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from batchscore import lookup
from batchscore.contracts import MODEL_COLUMN, PREDICTION, RUN_COLUMN, VERSION_COLUMN, Manifest, PinnedModel
from batchscore.engines import PROBABILITY
from batchscore.engines.contributions import Contributions
from batchscore.explain.origin import model_of, run_of
from batchscore.explain.recompute import Rescored, rescore
from batchscore.explain.snapshot import SourceRow, source_row
from batchscore.explain.values import Explanation, InputRow, ModelFacts, Recomputed, RunFacts, TableRow
from batchscore.lookup import FileSet, FoundRow, as_values

__all__ = ["Explanation", "explain"]


def explain(
    table: str,
    keys: Sequence[str],
    *,
    at: int | None = None,
    tracking_uri: str | None = None,
    allowed_paths: Sequence[str] = (),
) -> Explanation:
    """One row of a prediction table with its run, model, inputs and the contributions of its features.

    What can no longer be had (a manifest, a vacuumed input, a deleted model) is said in its part; the others are told.

    Args:
        table: path or URI of the prediction table.
        keys: ``column=value`` texts that name one row.
        at: the table's version; None is the newest.
        tracking_uri: the operator's registry; where none is named, the recorded one is asked, and no code of it is
            loaded.
        allowed_paths: folders whose models may run code.

    Raises:
        SettingsError: no row has the keys, or several; or a key does not fit the table.
        InputError: there is no such table or version, or its files are gone or damaged.
        UnavailableError: storage did not answer.
    """
    files = lookup.files_at(table, at, bounds=[text.partition("=")[0] for text in keys])
    files.require_readable()
    typed = lookup.typed_keys(keys, files.columns)
    found = lookup.one_row(files, typed)
    row = _table_row(table, files, found, at)
    told = {value.name: str(value.value) for value in row.values if value.value is not None}
    run_id = told.get(RUN_COLUMN)
    run = run_of(table, run_id) if run_id else RunFacts("", problem="the row has no run: batchscore did not write it")
    if run.manifest is None:
        facts = ModelFacts(told.get(MODEL_COLUMN, ""), told.get(VERSION_COLUMN, ""), files_problem=_UNKNOWN)
        nothing = Recomputed(problem=_UNKNOWN)
        return Explanation(row, run, facts, InputRow(problem=_UNKNOWN), nothing, Contributions("", reason=_UNKNOWN))
    model, facts = model_of(run.manifest, tracking_uri, allowed_paths)
    source = source_row(run.manifest, found.place.file.partition, [key.name for key in typed], found, files)
    again = _again(model, run.manifest, source, found)
    return Explanation(
        row=row,
        run=run,
        model=facts,
        input=replace(source.facts, values=again.inputs),
        recomputed=again.recomputed,
        contributions=again.contributions,
    )


_UNKNOWN = "no manifest of the row's run is there"


def _again(model: PinnedModel | None, manifest: Manifest, source: SourceRow, found: FoundRow) -> Rescored:
    if source.batch is None or source.files is None:
        return _not_again("the row's inputs are not at hand")
    columns = source.files.readable
    if model is None:
        return replace(_not_again("the model is not at hand"), inputs=as_values(source.batch, columns))
    again = rescore(model, manifest, source.batch, columns, found.batch)
    return again if again.inputs else replace(again, inputs=as_values(source.batch, columns))


def _not_again(reason: str) -> Rescored:
    return Rescored(Recomputed(problem=reason), Contributions("", reason=reason))


def _table_row(table: str, files: FileSet, found: FoundRow, at: int | None) -> TableRow:
    version = -1 if files.version is None else files.version
    names = [column.name for column in files.readable]
    return TableRow(
        table=table,
        version=version,
        newest=at is None or lookup.newest_version(table) == version,
        commit=lookup.commit_of(table, version),
        file=found.place.file.path,
        position=found.place.position,
        values=as_values(found.batch, files.readable),
        scores=tuple(name for name in names if name in {PREDICTION, PROBABILITY} or name.startswith(f"{PREDICTION}_")),
    )
