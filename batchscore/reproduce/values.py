"""The answer of `batchscore reproduce`."""

from __future__ import annotations

from dataclasses import dataclass

from batchscore.errors import InputError, ValidationRefused


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is not what was published, as texts; '' for a row that one side lacks."""

    keys: tuple[tuple[str, str], ...]
    column: str
    published: str
    again: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Published rows beside rows scored again.

    Attributes:
        equal: rows alike in every output, bit for bit.
        different: rows that differ in some output.
        missing: rows scored again that the table lacks.
        surplus: rows of the run in the table that scoring again does not give.
        largest: largest absolute difference by output, of those that differ and are numbers.
        samples: up to ten differences.
    """

    equal: int = 0
    different: int = 0
    missing: int = 0
    surplus: int = 0
    largest: tuple[tuple[str, float], ...] = ()
    samples: tuple[Difference, ...] = ()

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs."""
        return not (self.different or self.missing or self.surplus)


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What came of scoring a run again.

    Attributes:
        version: the table's version that the run's rows were read from, and ``own_version`` whether the run made it.
        rows_published: rows that the run's manifest states.
        units: units compared.
        engine: the engine, and ``same_artifact`` whether what it made of the model is the recorded one, bit for bit;
            None where it makes nothing.
        versions: (library, version then, version now), where the certificate tells.
        sample: rows asked for, 0 for all; they were drawn with ``seed``.
        not_available: what could not be compared any more, and why.
        notes: units that the run did not publish, rows that were erased since, and the like.
    """

    run_id: str
    table: str
    version: int
    model: str
    engine: str
    runner: str
    rows_published: int
    units: int
    comparison: Comparison
    own_version: bool = True
    same_artifact: bool | None = None
    versions: tuple[tuple[str, str, str], ...] = ()
    sample: int = 0
    seed: int = 0
    not_available: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 where all rows are equal, 4 where scores differ, 5 where part of the input could not be had."""
        if not self.comparison.is_equal:
            return ValidationRefused.exit_code
        return InputError.exit_code if self.not_available else 0
