"""Decides everything before a row is read; pure: no clock, no network, no file, no Spark."""

from __future__ import annotations

from batchscore.plan.make import PlanInputs, make

__all__ = ["PlanInputs", "make"]
