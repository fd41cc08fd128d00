"""Made-up card transactions with known distributions, written day by day in bounded memory."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

DAYS = 14
FIRST_DAY = dt.date(2026, 11, 1)
SEED = 20261101
CHUNK_ROWS = 100_000  # rows made at once, and the rows of a row group: about 10 MB
FILE_ROWS = 1_000_000
NULL_FRACTION = 0.015
# Above 2**53 a float64 cannot hold every integer: a key that went through one comes back as its neighbour.
FIRST_ID = 2**53 + 1

CATEGORIES = ("grocery", "fuel", "restaurant", "travel", "electronics", "gambling", "jewellery", "online_services")
CATEGORY_SHARES = (0.30, 0.14, 0.18, 0.08, 0.10, 0.03, 0.02, 0.15)
CATEGORY_RISKS = (-0.6, -0.4, -0.3, 0.3, 0.7, 1.4, 1.1, 0.4)
COUNTRIES = ("DE", "FR", "GB", "ES", "IT", "US", "BR", "NG")
COUNTRY_SHARES = (0.30, 0.18, 0.15, 0.11, 0.10, 0.09, 0.04, 0.03)
COUNTRY_RISKS = (-0.2, -0.1, 0.0, 0.1, 0.1, 0.3, 0.7, 0.9)
DEVICES = ("chip", "contactless", "phone", "browser")
DEVICE_SHARES = (0.35, 0.30, 0.20, 0.15)
DEVICE_RISKS = (-0.5, -0.3, 0.2, 0.9)
# Hours of the day: few at night, most around noon and in the early evening.
HOUR_WEIGHTS = (2, 1, 1, 1, 1, 2, 4, 7, 10, 11, 12, 14, 15, 13, 12, 12, 13, 15, 16, 14, 11, 8, 5, 3)
NIGHT_HOURS = 6
BASE_LOGIT = -4.2  # gives a fraud rate of about 3 %

Floats = npt.NDArray[np.float64]


def make_data(directory: Path, rows: int, days: int = DAYS, seed: int = SEED) -> None:
    """Writes ``rows`` transactions as Parquet, Hive-partitioned by ``ds`` (YYYY-MM-DD), equally over ``days``.

    The same arguments give the same values. Memory is bounded by ``CHUNK_ROWS``, whatever ``rows`` is.

    Columns and their distributions:

    ====================== ======= ==========================================================================
    ``transaction_id``     long    consecutive from 2^53 + 1, unique
    ``amount``             double  log-normal, median 30, sigma 1.1, cents; never null
    ``merchant_category``  string  8 values, shares 2 % to 30 %
    ``hour``               integer 0 to 23, few at night; never null
    ``country``            string  8 values, shares 3 % to 30 %
    ``account_age_days``   double  exponential, mean 900, whole days
    ``distance_km``        double  log-normal, median 8, sigma 1.5, from the customer's home
    ``device``             string  4 values, shares 15 % to 35 %
    ====================== ======= ==========================================================================

    1.5 % of each column are null, independently, where not said otherwise.

    Args:
        directory: folder to make; must not hold files yet.
        rows: in all.
        days: partitions, from 2026-11-01 on.
        seed: of the random generator.
    """
    share, left = divmod(rows, days)
    first = 0
    for day in range(days):
        folder = directory / f"ds={FIRST_DAY + dt.timedelta(days=day)}"
        folder.mkdir(parents=True)
        in_day = share + (day < left)
        for number, begin in enumerate(range(0, in_day, FILE_ROWS)):
            size = min(FILE_ROWS, in_day - begin)
            path = folder / f"part-{number:03d}.parquet"
            with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
                for chunk in _chunks(first + begin, size, seed):
                    writer.write_table(chunk, row_group_size=CHUNK_ROWS)
        first += in_day


def transactions(first: int, rows: int, seed: int = SEED) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
    """``rows`` transactions from number ``first`` on, and which of them are fraud.

    The distributions are those of :func:`make_data`. Whether a transaction is fraud is drawn with a probability
    whose log-odds add up from the category, the country, the device, the amount, the night, a new account and
    the distance.
    """
    generator = np.random.default_rng([seed, first])
    amount = np.round(np.exp(generator.normal(np.log(30.0), 1.1, rows)), 2)
    hour = generator.choice(24, rows, p=np.array(HOUR_WEIGHTS) / sum(HOUR_WEIGHTS)).astype(np.int32)
    age = np.floor(generator.exponential(900.0, rows))
    distance = np.exp(generator.normal(np.log(8.0), 1.5, rows))
    category = generator.choice(len(CATEGORIES), rows, p=CATEGORY_SHARES)
    country = generator.choice(len(COUNTRIES), rows, p=COUNTRY_SHARES)
    device = generator.choice(len(DEVICES), rows, p=DEVICE_SHARES)
    logit: Floats = (
        BASE_LOGIT
        + np.array(CATEGORY_RISKS)[category]
        + np.array(COUNTRY_RISKS)[country]
        + np.array(DEVICE_RISKS)[device]
        + 0.9 * np.log(np.maximum(amount, 1.0) / 30.0)
        + 1.2 * (hour < NIGHT_HOURS)
        + 1.0 * (age < 30)  # noqa: PLR2004  # days: a new account
        + 0.35 * np.log(distance / 8.0)
    )
    fraud = generator.random(rows) < 1.0 / (1.0 + np.exp(-logit))
    columns = [
        pa.array(np.arange(FIRST_ID + first, FIRST_ID + first + rows, dtype=np.int64)),
        pa.array(amount),
        _labels(category, CATEGORIES, _nulls(generator, rows)),
        pa.array(hour),
        _labels(country, COUNTRIES, _nulls(generator, rows)),
        pa.array(age, mask=_nulls(generator, rows)),
        pa.array(distance, mask=_nulls(generator, rows)),
        _labels(device, DEVICES, _nulls(generator, rows)),
    ]
    return pa.Table.from_arrays(columns, schema=_SCHEMA), fraud


_SCHEMA = pa.schema(
    [
        pa.field("transaction_id", pa.int64(), nullable=False),
        pa.field("amount", pa.float64()),
        pa.field("merchant_category", pa.string()),
        pa.field("hour", pa.int32()),
        pa.field("country", pa.string()),
        pa.field("account_age_days", pa.float64()),
        pa.field("distance_km", pa.float64()),
        pa.field("device", pa.string()),
    ]
)


def _chunks(first: int, rows: int, seed: int) -> Iterator[pa.Table]:
    for begin in range(0, rows, CHUNK_ROWS):
        yield transactions(first + begin, min(CHUNK_ROWS, rows - begin), seed)[0]


def _nulls(generator: np.random.Generator, rows: int) -> npt.NDArray[np.bool_]:
    return generator.random(rows) < NULL_FRACTION


def _labels(codes: npt.NDArray[np.int64], labels: tuple[str, ...], nulls: npt.NDArray[np.bool_]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=nulls), pa.array(labels)).cast(pa.string())
