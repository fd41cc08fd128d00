"""What explain and reproduce print, whole and with pieces missing."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json

from batchscore.cli import explain_text, reproduce_text
from batchscore.config import redacted
from batchscore.contracts import Certificate, ManifestUnit, RunRecord, TargetState
from batchscore.engines.contributions import Contribution, Contributions, OutputContributions
from batchscore.explain import Explanation
from batchscore.explain.values import InputRow, ModelFacts, Recomputed, RunFacts, TableRow
from batchscore.lookup import Commit, Value
from batchscore.models import VersionFacts
from batchscore.reproduce import Comparison, Difference, Reproduction
from tests.factories.staging import day, make_manifest, make_plan
from tests.factories.values import config
from tests.unit.golden_files import assert_golden

RUN = "20261121T031500-0a1b2c3d"
PROOF = Certificate(
    engine="compiled",
    reference="pyfunc",
    model_digest="d" * 64,
    artifact_digest="a" * 64,
    versions=(("lightgbm", "4.7.0"), ("numpy", "2.4.0")),
    probes=(("threshold", 10_000), ("sample", 864)),
    max_abs_diff=0.0,
    max_rel_diff=0.0,
    label_flips=0,
    nan_mismatches=0,
    verdict="equal",
    reason="",
    worst=(),
    allowed_abs_diff=1e-5,
    allowed_label_flips=0,
    created_at="2026-11-20T03:00:00.000Z",
)
RECORD = RunRecord(
    run_id=RUN,
    state="published",
    started_at="2026-11-21T03:15:00.000Z",
    ended_at="2026-11-21T03:15:09.000Z",
    model_name="fraud",
    model_version="7",
    model_digest="d" * 64,
    source_uri="/data/transactions",
    source_version=3,
    source_snapshot="c" * 64,
    table="predictions/fraud",
    table_version=4,
    mode="partitions",
    units_published=1,
    units_live=0,
    rows_read=10,
    rows=10,
    engine="compiled",
    runner="spark",
    seconds=9.0,
    exit_code=0,
    message="10 rows as version 4",
)


def manifest():
    job = config(model={"version": "7"}, input={"where": "amount > 1", "partitions": {"ds": ["2026-11-21"]}})
    made = make_manifest(make_plan(TargetState("/out"), RUN, {}), [ManifestUnit(day("2026-11-21"), "k", 10)])
    facts = {
        "model_name": "fraud", "model_version": "7", "model_uri": "models:/fraud/7", "source_uri": "/data/transactions",
        "source_kind": "delta", "source_version": 3, "source_snapshot": "c" * 64, "settings_digest": "e" * 64,
        "settings": redacted(job), "engine": "compiled", "runner": "spark", "certificate": PROOF,
    }  # fmt: skip
    return dataclasses.replace(made, **facts)


def contributions(features=3):
    items = [
        Contribution("country", "DE", -1.25),
        Contribution("amount", 12.5, 0.5),
        Contribution("hour", None, 0.0),
        *(Contribution(f"f{index}", float(index), 0.01) for index in range(features - 3)),
    ]
    raw = -3.0 + sum(item.amount for item in items)
    return Contributions("lightgbm", "log-odds", (OutputContributions("", -3.0, raw, tuple(items), adds_up=True),))


def whole():
    row = TableRow(
        table="predictions/fraud",
        version=4,
        newest=True,
        commit=Commit(4, "2026-11-21T03:15:08.500Z", "WRITE", RUN),
        file="/work/predictions/fraud/ds=2026-11-21/part-0.parquet",
        position=1234,
        values=(
            Value("id", "long", 9007199254740993),
            Value("ds", "date", dt.date(2026, 11, 21)),
            Value("prediction", "double", 0.023094),
            Value("_run_id", "string", RUN),
        ),
        scores=("prediction",),
    )
    registered = VersionFacts(
        name="fraud",
        version="7",
        state="registered",
        created_at="2026-11-01T10:00:00Z",
        user="ann",
        description="retrained on October",
        stage="Production",
        aliases=("champion",),
        source="file:///models/fraud",
        run_id="0a1b2c",
        run_name="nightly",
        run_user="bob",
        run_started_at="2026-11-01T09:00:00Z",
    )
    return Explanation(
        row=row,
        run=RunFacts(RUN, RECORD, manifest()),
        model=ModelFacts("fraud", "7", "models:/fraud/7", "d" * 64, registered),
        input=InputRow(
            uri="/data/transactions",
            kind="delta",
            version=3,
            snapshot="c" * 64,
            verified=True,
            file="/data/transactions/part-1.parquet",
            values=(Value("amount", "double", 12.5), Value("country", "string", "DE"), Value("hour", "integer", None)),
        ),
        recomputed=Recomputed("native", (Value("prediction", "double", 0.023094),), equal=True),
        contributions=contributions(),
    )


def text(found):
    return "\n".join(explain_text.explanation_lines(found))


def test_the_whole_explanation():
    assert_golden("explain", text(whole()))


def test_pieces_that_are_missing_are_said_and_the_rest_is_told():
    found = dataclasses.replace(
        whole(),
        row=dataclasses.replace(whole().row, newest=False, commit=None),
        run=RunFacts(RUN, None, None, "the ledger does not tell: nothing; its manifest is missing"),
        model=ModelFacts("fraud", "7", registry_problem="version 7 was deleted", files_problem="they are gone"),
        input=InputRow(problem="no manifest of the row's run is there"),
        recomputed=Recomputed(problem="the row's inputs are not at hand"),
        contributions=Contributions("", reason="the row's inputs are not at hand"),
    )
    assert_golden("explain_missing", text(found))


def test_an_input_that_changed():
    given = dataclasses.replace(whole().input, verified=False, file="", values=(), problem="the files of ds=1 are gone")
    lines = text(dataclasses.replace(whole(), input=given)).splitlines()
    assert "input row     not available: the files of ds=1 are gone" in lines
    assert not any("as recorded" in line for line in lines)


def test_a_score_that_is_not_the_same():
    again = Recomputed("compiled", (Value("prediction", "double", 0.5),), equal=False, difference=0.25)
    shown = text(dataclasses.replace(whole(), recomputed=again))
    assert "by engine compiled: DIFFERENT: prediction = 0.5, off by 0.25" in shown


def test_contributions_that_do_not_add_up_are_not_hidden():
    (output,) = contributions().outputs
    given = Contributions("lightgbm", "", (dataclasses.replace(output, adds_up=False),))
    assert "THEY DO NOT ADD UP TO IT" in text(dataclasses.replace(whole(), contributions=given))


def test_many_features_are_summed_up():
    shown = text(dataclasses.replace(whole(), contributions=contributions(30)))
    assert "10 others" in shown
    assert "+0.100000" in shown.partition("10 others")[2].splitlines()[0]


def test_the_most_probable_of_several_classes():
    (output,) = contributions().outputs
    other = dataclasses.replace(output, label="high", raw=5.0)
    given = Contributions("xgboost", "logit of the class", (dataclasses.replace(output, label="low"), other))
    assert "for class high, the most probable of 2" in text(dataclasses.replace(whole(), contributions=given))


def test_values_are_bounded_and_on_one_line():
    row = dataclasses.replace(whole().row, values=(Value("note", "string", "a\nb" + "x" * 500),), scores=())
    lines = text(dataclasses.replace(whole(), row=row)).splitlines()
    assert lines[0].startswith("row           note=a bxxx")
    assert len(lines[0]) < 80


def test_the_document_is_json():
    (output,) = contributions().outputs
    odd = dataclasses.replace(output, items=(Contribution("x", float("nan"), float("inf")),))
    found = dataclasses.replace(whole(), contributions=Contributions("lightgbm", "", (odd,)))
    document = json.loads(json.dumps(explain_text.as_document(found), allow_nan=False))
    assert document["row"]["values"][0] == {"name": "id", "type": "long", "value": 9007199254740993}
    assert document["contributions"]["outputs"][0]["items"][0] == {"feature": "x", "value": "nan", "amount": "inf"}
    assert document["run"]["manifest"]["certificate"]["engine"] == "compiled"
    assert document["input"]["verified"] is True


# --- reproduce ----------------------------------------------------------------------------------------------


def reproduced(comparison, **facts):
    base = Reproduction(
        run_id=RUN,
        table="predictions/fraud",
        version=4,
        model="models:/fraud/7",
        engine="compiled",
        runner="local",
        rows_published=1000,
        units=14,
        comparison=comparison,
        same_artifact=True,
        versions=(("lightgbm", "4.7.0", "4.7.0"), ("numpy", "2.4.0", "2.4.0")),
        seconds=1.5,
    )
    return dataclasses.replace(base, **facts)


DIFFERENT = Comparison(
    equal=997,
    different=1,
    missing=1,
    surplus=1,
    largest=(("prediction", 0.25),),
    samples=(
        Difference((("id", "7"),), "prediction", "0.5", "0.25"),
        Difference((("id", "8"),), "prediction", "", "0.1"),
    ),
)


def test_all_equal():
    assert_golden("reproduce_equal", "\n".join(reproduce_text.reproduction_lines(reproduced(Comparison(equal=1000)))))


def test_differences_are_shown_with_keys_and_both_values():
    found = reproduced(
        DIFFERENT,
        sample=100,
        seed=7,
        same_artifact=False,
        own_version=False,
        versions=(("lightgbm", "4.7.0", "4.8.0"), ("treelite", "4.4.0", "")),
        not_available=("the files of ds=2026-11-02 are gone",),
    )
    assert_golden("reproduce_different", "\n".join(reproduce_text.reproduction_lines(found)))


def test_exit_codes():
    assert reproduced(Comparison(equal=1)).exit_code == 0
    assert reproduced(DIFFERENT).exit_code == 4
    assert reproduced(Comparison(equal=1), not_available=("a",)).exit_code == 5
    assert reproduced(DIFFERENT, not_available=("a",)).exit_code == 4


def test_the_answer_as_json():
    infinite = dataclasses.replace(DIFFERENT, largest=(("prediction", float("inf")),))
    document = json.loads(json.dumps(reproduce_text.as_document(reproduced(infinite)), allow_nan=False))
    assert (document["equal"], document["exit_code"]) == (False, 4)
    assert document["comparison"]["largest"] == {"prediction": "inf"}
    assert document["comparison"]["samples"][0]["keys"] == {"id": "7"}
