"""Which version carried an alias or a stage on a date: what follows from single certain instants, and what does not."""

from __future__ import annotations

import datetime as dt

import pytest

from batchscore.contracts import KnownVersion, Observation, VersionHistory
from batchscore.errors import SettingsError
from batchscore.plan.versions import versions_as_of

NOW = dt.datetime(2026, 11, 21, 6, tzinfo=dt.UTC)


def known(version, created, updated=None, stage="None"):
    return KnownVersion(str(version), f"{created}T12:00:00+00:00", f"{updated or created}T12:00:00+00:00", stage)


def run(version, at, name="r"):
    return Observation(at, str(version), f"ledger: run {name} was given it")


def found(dates, history, *runs, now=NOW):
    return {date: item.version for date, item in versions_as_of(dates, history, runs, now).items()}


def stage(*versions, current="2"):
    return VersionHistory("stage", "Production", current, versions)


def alias(*versions, current="2"):
    return VersionHistory("alias", "champion", current, versions)


TWO = (known(1, "2026-10-01", "2026-11-08", "Archived"), known(2, "2026-11-05", "2026-11-08", "Production"))


def test_a_version_is_in_its_stage_since_it_was_last_changed():
    dates = ("2026-11-08", "2026-11-09", "2026-11-21")
    assert found(dates, stage(*TWO)) == dict.fromkeys(dates, "2")
    because = versions_as_of(("2026-11-09",), stage(*TWO), (), NOW)["2026-11-09"].why
    assert because == "registry: in Production since 2026-11-08 at the latest, and registry: it does now"


def test_before_that_only_what_a_run_was_given_tells():
    with pytest.raises(SettingsError, match="2026-11-06, 2026-11-07"):
        found(("2026-11-06", "2026-11-07", "2026-11-08"), stage(*TWO))
    runs = [run(1, f"2026-11-{day:02d}T01:00:00.000Z") for day in (6, 7)]
    assert found(("2026-11-06", "2026-11-07", "2026-11-08"), stage(*TWO), *runs) == {
        "2026-11-06": "1",
        "2026-11-07": "1",
        "2026-11-08": "2",
    }


def test_the_first_version_is_certain_while_there_was_no_other():
    assert found(("2026-10-01", "2026-11-04"), stage(*TWO)) == {"2026-10-01": "1", "2026-11-04": "1"}
    assert found(("2026-11-04",), alias(*TWO)) == {"2026-11-04": "1"}
    with pytest.raises(SettingsError, match="2026-11-05"):
        found(("2026-11-05",), alias(*TWO))
    with pytest.raises(SettingsError, match="2026-09-30"):
        found(("2026-09-30",), alias(*TWO))
    deleted = (known(2, "2026-10-01"), known(3, "2026-11-05"))
    with pytest.raises(SettingsError, match="2026-11-04"):
        found(("2026-11-04",), alias(*deleted, current="3"))


def test_an_alias_leaves_no_trace_but_in_the_ledger():
    dates = ("2026-11-09", "2026-11-10", "2026-11-11", "2026-11-12")
    with pytest.raises(SettingsError, match="2026-11-09, 2026-11-10, 2026-11-11, 2026-11-12"):
        found(dates, alias(*TWO))
    runs = (run(1, "2026-11-09T01:00:00.000Z"), run(1, "2026-11-12T01:00:00.000Z"))
    assert found(dates, alias(*TWO), *runs) == dict.fromkeys(dates, "1"), "both runs agree, so it was the same between"
    with pytest.raises(SettingsError, match="2026-11-10, 2026-11-11; "):
        found(dates, alias(*TWO), runs[0], run(2, "2026-11-12T01:00:00.000Z"))


def test_a_run_just_after_midnight_is_of_the_new_date():
    runs = (run(1, "2026-11-09T23:59:59.999Z"), run(2, "2026-11-10T00:00:00.000Z"))
    assert found(("2026-11-09", "2026-11-10"), alias(*TWO), *runs) == {"2026-11-09": "1", "2026-11-10": "2"}


def test_the_newest_of_a_date_counts():
    runs = (run(1, "2026-11-09T01:00:00Z"), run(2, "2026-11-09T13:00:00Z"))
    assert found(("2026-11-09",), alias(*TWO), *reversed(runs)) == {"2026-11-09": "2"}


def test_today_is_what_the_registry_says_now():
    assert found(("2026-11-21", "2026-11-22"), alias(*TWO)) == {"2026-11-21": "2", "2026-11-22": "2"}
    with pytest.raises(SettingsError, match="no version carries it now"):
        found(("2026-11-21",), alias(*TWO, current=""))


def test_the_latest_version_follows_from_when_versions_were_made():
    latest = VersionHistory("latest", "", "", (known(2, "2026-11-05"), known(10, "2026-11-08")))
    assert found(("2026-11-05", "2026-11-07", "2026-11-08"), latest) == {
        "2026-11-05": "2",
        "2026-11-07": "2",
        "2026-11-08": "10",
    }
    with pytest.raises(SettingsError, match="no version that old"):
        found(("2026-11-04",), latest)


def test_the_way_out_is_named_and_the_list_of_dates_is_bounded():
    dates = tuple(f"2026-11-{day:02d}" for day in range(8, 20))
    with pytest.raises(SettingsError, match="12 of 12 dates") as caught:
        found(dates, alias(*TWO))
    assert "and 2 more" in caught.value.text() or "…" in caught.value.text()
    assert "--model name/7" in str(caught.value.hint)


def test_the_last_day_of_the_calendar():
    assert found(("9999-12-31",), alias(*TWO)) == {"9999-12-31": "2"}
