"""What an explanation is made of. Each part says itself what it lacks; the others are there all the same."""

from __future__ import annotations

from dataclasses import dataclass

from batchscore.contracts import Manifest, RunRecord
from batchscore.engines.contributions import Contributions
from batchscore.lookup import Commit, Value
from batchscore.models import VersionFacts


@dataclass(frozen=True, slots=True)
class TableRow:
    """The row of the prediction table.

    Attributes:
        table: path or URI.
        version: the version that was looked at.
        newest: whether that is the newest one.
        commit: its commit, None where the log no longer holds it.
        file: path of the data file.
        position: the row's place in that file.
        values: all columns.
        scores: names of those that the model made.
    """

    table: str
    version: int
    newest: bool
    commit: Commit | None
    file: str
    position: int
    values: tuple[Value, ...]
    scores: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The run that wrote the row: its ledger row and its manifest, as far as they are there."""

    run_id: str
    record: RunRecord | None = None
    manifest: Manifest | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The model: by the row's own columns and the manifest.

    Attributes:
        registry: what its registry says of it today; None where ``registry_problem`` says why it says nothing.
        files_problem: why its recorded files are not at hand, or ''.
    """

    name: str
    version: str
    uri: str = ""
    digest: str = ""
    registry: VersionFacts | None = None
    registry_problem: str = ""
    files_problem: str = ""


@dataclass(frozen=True, slots=True)
class InputRow:
    """The row of the recorded input.

    Attributes:
        verified: whether the files are those that the run scored.
        file: the file that held the row.
        values: the model's inputs, or where the model is unknown all columns.
        problem: why there are none, or ''.
    """

    uri: str = ""
    kind: str = ""
    version: int | None = None
    snapshot: str = ""
    verified: bool = False
    file: str = ""
    values: tuple[Value, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Recomputed:
    """The score computed again from the recorded row with the recorded model.

    Attributes:
        engine: what computed it, '' where nothing did.
        scores: the values, by the table's columns.
        equal: whether they are the stored ones, bit for bit.
        difference: the largest one, None where there is none or it is no number.
        problem: why it was not computed, or ''.
    """

    engine: str = ""
    scores: tuple[Value, ...] = ()
    equal: bool = False
    difference: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """One score and everything that made it."""

    row: TableRow
    run: RunFacts
    model: ModelFacts
    input: InputRow
    recomputed: Recomputed
    contributions: Contributions
