"""A run scored again from its recorded input with its recorded model: `batchscore reproduce`.

Nothing is published: whole runs are scored into a scratch folder by the stages of a run, samples in memory.
"""

from __future__ import annotations

import time
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from batchscore import record, staging
from batchscore.arrow.filesystem import open_filesystem
from batchscore.config import JobConfig
from batchscore.contracts import Column, Manifest, ManifestUnit, RunOptions, ScoringPlan, UnitValues
from batchscore.engines import SPARKML
from batchscore.errors import SettingsError
from batchscore.lookup import DataFile
from batchscore.prepare import LazySpark, OnEvent, Ready, absolute, make_plan, pin_model, pin_source
from batchscore.recorded import registry_of
from batchscore.reproduce.again import key_columns, replaying, restricted, usable_units, versions, with_engine
from batchscore.reproduce.compare import Excused, Tally
from batchscore.reproduce.erased import Erasures, erased_notes
from batchscore.reproduce.published import Published, published_by, staged_batches
from batchscore.reproduce.sample import draw, scored
from batchscore.reproduce.scratch import scratch_place
from batchscore.reproduce.settings import check_filled, rebuilt
from batchscore.reproduce.values import Comparison, Difference, Reproduction
from batchscore.score.writer import unit_codes

__all__ = ["Comparison", "Difference", "Options", "Reproduction", "reproduce"]

WHOLE = ("a replay is compared in whole: its rows are looked for by their keys",)


@dataclass(frozen=True, slots=True)
class Options:
    """How a run is scored again.

    Attributes:
        sample: rows to compare, 0 for all.
        seed: by which they are drawn; None: a number made of the run's id.
        runner: ``local``, ``spark``, or None: local where the model allows it.
        tracking_uri: the operator's registry, where it is not that of the settings; without either the recorded one
            is asked, and no code of it is loaded.
        settings: the job's settings of today, for what the manifest masks and what it is not trusted to say.
        allowed_paths: folders whose models may run code, beside those of the settings.
    """

    sample: int = 0
    seed: int | None = None
    runner: str | None = None
    tracking_uri: str | None = None
    settings: JobConfig | None = None
    allowed_paths: tuple[str, ...] = ()

    def registry(self, manifest: Manifest) -> tuple[dict[str, object], bool]:
        """The settings' section on where the model is, and whether the manifest alone says so."""
        given = None if self.settings is None else self.settings.registry
        named = self.tracking_uri or (None if given is None else given.tracking_uri)
        uri, is_recorded = registry_of(manifest, named)
        paths = [*self.allowed_paths, *(() if given is None else given.allowed_paths)]
        return {**({"tracking_uri": uri} if uri else {}), "allowed_paths": paths}, is_recorded


def reproduce(table: str, run: str, options: Options, on_event: OnEvent = lambda _: None) -> Reproduction:
    """Scores a run's recorded input again and compares with what the run published.

    Args:
        table: path or URI of the prediction table.
        run: a run id, or its first characters.
        options: how.
        on_event: receives stages and progress.

    Raises:
        SettingsError: no such run, it published nothing, its settings cannot be rebuilt, its model holds code that
            nobody allowed, or its rows cannot be told apart.
        ModelError: the model or the engine is gone, damaged, or another one than recorded.
        InputError: the recorded input is gone or changed, or the published files are gone.
        UnavailableError: storage or registry did not answer.
    """
    started = time.perf_counter()
    found, manifest = record.show(table, run)
    if manifest is None or found.state != "published":
        raise SettingsError(
            f"run {found.run_id} cannot be reproduced",
            found=f"state {found.state}" if found.state != "published" else "its manifest is missing or damaged",
            hint="`batchscore history` lists the runs that published something",
        )
    runner = options.runner or ("spark" if manifest.engine == SPARKML else "local")
    with scratch_place(table, runner) as folder:
        registry, is_recorded = options.registry(manifest)
        config = rebuilt(manifest, options.settings, registry=registry, runner=runner, output=folder)
        on_event({"event": "stage", "stage": "plan", "text": f"{manifest.model_uri} on {manifest.source_uri}"})
        model = pin_model(config, digest=manifest.model_digest, recorded=is_recorded)
        spark = LazySpark(config, on_event)
        source, _ = pin_source(config, spark)
        plan = make_plan(config, RunOptions(force=True), spark, Ready(spark, model, source))
        if options.settings is not None:
            check_filled(manifest, config, plan)
        published = published_by(table, found)
        erasures = Erasures.of_run(table, found.run_id)
        usable = usable_units(manifest, plan, published, erasures)
        plan, same_artifact = with_engine(restricted(plan, usable.units), manifest, config)
        plan = replaying(plan, manifest, absolute(table))
        lost = erasures.lost_rows(published, usable.units)
        again = _Again(plan, usable.units, published, spark, on_event, erasures, lost)
        # The rows of a replay are looked for by their keys in all of the input: a part of them costs as much.
        sampled = 0 < options.sample < usable.rows and not manifest.replays
        seed = zlib.crc32(found.run_id.encode()) if options.seed is None else options.seed
        comparison = again.by_sample(options.sample, seed) if sampled else again.whole(runner)
    return Reproduction(
        run_id=found.run_id,
        table=table,
        version=published.version,
        model=manifest.model_uri,
        engine=manifest.engine,
        runner=runner,
        rows_published=sum(unit.rows for unit in manifest.units),
        units=len(usable.units),
        comparison=comparison,
        own_version=published.own,
        same_artifact=same_artifact,
        versions=versions(manifest.certificate, manifest.engine),
        sample=options.sample if sampled else 0,
        seed=seed if sampled else 0,
        not_available=usable.missing,
        notes=(*usable.notes, *erased_notes(lost), *(WHOLE if options.sample and manifest.replays else ())),
        seconds=round(time.perf_counter() - started, 3),
    )


@dataclass(frozen=True)
class _Again:
    """The run scored again, in whole or by a sample."""

    plan: ScoringPlan
    units: Sequence[ManifestUnit]
    published: Published
    spark: LazySpark
    on_event: OnEvent
    erasures: Erasures
    lost: Mapping[UnitValues, int]

    def whole(self, runner: str) -> Comparison:
        """Every row of the units, scored by the stages of a run."""
        plan, uri = self.plan, self.plan.target.uri
        self._stage("score", f"{sum(unit.rows for unit in self.units):,} rows, engine {plan.task.engine}")
        if runner == "spark":
            self.spark(use="tasks" if plan.route == "splits" else "delta", task=plan.task)
        # What cannot be scored is scratch, too.
        plan = replace(plan, task=replace(plan.task, quarantine_uri=f"{uri}/quarantine"))
        staged = staging.Staging(runner, self.spark, self.on_event).fill(plan)
        _, root = open_filesystem(uri)
        tally = self._tally()
        names = [*tally.keys, *tally.outputs]
        columns = tuple(Column(column.name, column.type) for column in plan.task.columns if column.name in names)
        self._stage("compare", f"{staged.rows_staged:,} rows")
        files: dict[UnitValues, list[DataFile]] = defaultdict(list)
        for file in staged.files:
            files[file.unit].append(DataFile(f"{root}/{file.path}", file.unit, file.rows, file.size))
        for unit in self.units:
            published = partial(self.published.batches, unit.values, names)
            again = partial(staged_batches, uri, files[unit.values], columns)
            tally.add(published, again, unit.rows, self._excused(unit.values))
        return tally.result()

    def by_sample(self, rows: int, seed: int) -> Comparison:
        """Some rows; where one differs, once more as the run scored it, in its whole batch.

        Raises:
            SettingsError: only Spark can read the input, or none of the drawn rows was scored by the run.
        """
        if self.plan.route != "splits":
            raise SettingsError(
                "rows are drawn from files, which this input is not read by",
                found=self.plan.route_reason,
                hint="leave --sample out",
            )
        self._stage("score", f"{rows:,} rows drawn by seed {seed}, engine {self.plan.task.engine}")
        drawn = draw(self.plan, rows, seed)
        found = self._compared(scored(self.plan, drawn))
        if found == Comparison():
            raise SettingsError(
                "none of the drawn rows was scored by the run: its condition leaves few",
                found=f"--sample {rows} --seed {seed}",
                hint="ask for more rows, or leave --sample out",
            )
        return found if found.is_equal else self._compared(scored(self.plan, drawn, whole_batches=True))

    def _compared(self, scored_rows: Iterable[pa.RecordBatch]) -> Comparison:
        batches = [kept for batch in scored_rows if (kept := self._of_units(batch)).num_rows]
        tally = self._tally(subset=True)
        if batches:
            values = pa.concat_arrays([batch.column(tally.keys[0]) for batch in batches])
            rows, excused = sum(len(batch) for batch in batches), Excused(missing=sum(self.lost.values()))
            tally.add(partial(self._with_keys, tally, values), lambda: batches, rows, excused)
        return tally.result()

    def _excused(self, values: UnitValues) -> Excused:
        """What was erased from the table; and from the quarantine, which then no longer names it for a replay."""
        spared = self.erasures.asked(values) if self.plan.task.replay is not None else 0
        return Excused(self.lost.get(values, 0), spared)

    def _with_keys(self, tally: Tally, values: pa.Array) -> Iterator[pa.RecordBatch]:
        """Published rows whose first key is among the drawn ones."""
        for unit in self.units:
            for batch in self.published.batches(unit.values, [*tally.keys, *tally.outputs]):
                yield batch.filter(pc.is_in(batch.column(tally.keys[0]), value_set=values))

    def _of_units(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows of the units that are compared; drawn ones can be of others where the layout does not tell units."""
        if self.plan.units_known:
            return batch
        wanted = {unit.values for unit in self.units}
        codes, found = unit_codes(batch, self.plan.task.partition_by)
        return batch.filter(pa.array([found[code] in wanted for code in codes.tolist()], pa.bool_()))

    def _tally(self, *, subset: bool = False) -> Tally:
        outputs = [column.name for column in self.plan.task.columns if column.origin == "model"]
        keys = key_columns(self.plan)
        if not keys:
            raise SettingsError("the run's rows have no columns to tell them apart", hint="name output.keys")
        return Tally(keys, outputs, subset=subset)

    def _stage(self, name: str, text: str) -> None:
        self.on_event({"event": "stage", "stage": name, "text": text})
