"""What Spark itself understood of a ``--where``: the last look before it is evaluated.

``where`` and ``functions`` judge the text with another parser than Spark's. Where the two should ever read a text
differently, this one counts.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from batchscore.errors import SettingsError, bounded, listed

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

CATALYST = "org.apache.spark.sql.catalyst."
# Other tables, code that somebody registered, the clock, the session, the file that a row came from.
_FOREIGN = re.compile(
    r"(.*Subquery|Exists|ListQuery|Scala.*UDF|Python.*UDF|.*UserDefined.*|CallMethodViaReflection|Current.*|Now"
    r"|LocalTimestamp.*|InputFile.*|SparkVersion|.*UDTF|.*Generator)"
)


def check_condition(frame: DataFrame, where: str, what: str = "--where") -> None:
    """Refuses a filtered frame whose condition reaches beyond its row.

    Args:
        frame: what ``frame.where(condition)`` gave.
        where: the condition's text, for the message.
        what: whose condition it is, for the message.

    Raises:
        SettingsError: naming what Spark found in it.
    """
    condition = _condition(frame, what)
    names = [str(node["class"]) for node in json.loads(condition.toJSON())]  # type: ignore[attr-defined]  # the JVM's
    foreign = sorted(
        {_short(name) for name in names if not name.startswith(CATALYST) or _FOREIGN.fullmatch(_short(name))}
    )
    if foreign or not condition.deterministic():  # type: ignore[attr-defined]  # as above
        raise SettingsError(
            f"{what} depends on more than the row",
            found=listed(foreign) if foreign else "an expression that differs when it is evaluated again",
            detail=(bounded(where),),
            allowed=("the table's own columns, constants, and functions of these",),
        )


def _condition(frame: DataFrame, what: str) -> object:
    plan = frame._jdf.queryExecution().analyzed()  # the plan is to be had there alone
    while plan.getClass().getSimpleName() != "Filter":  # Spark may project hidden columns away above it
        children = plan.children()
        if children.size() != 1:
            raise SettingsError(
                f"{what} is no condition on the rows of the table", found=plan.getClass().getSimpleName()
            )
        plan = children.apply(0)
    return plan.condition()


def _short(name: str) -> str:
    return name.rpartition(".")[2]
