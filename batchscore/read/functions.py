"""Which functions a ``--where`` may call: those whose value depends on the row alone.

The list is closed. A function that is not on it may reach other data (``reflect``, ``read_files``, a function that
somebody registered), or give another answer when the same rows are read again, and then a unit would no longer be the
same by its key. The words are looked for before a parenthesis in the text itself, whatever a parser makes of it.
"""

# ruff: noqa: SIM905  # two hundred quoted words are no easier to read
from __future__ import annotations

import itertools
from collections.abc import Iterator

import sqlglot
from sqlglot import Token, TokenType

from batchscore.contracts import Schema
from batchscore.errors import SettingsError, bounded, nearest

ROW_FUNCTIONS = frozenset(
    """
    abs acos acosh add_months aggregate array array_contains array_distinct array_except array_intersect array_join
    array_max array_min array_position array_remove array_repeat array_size array_sort array_union arrays_overlap
    arrays_zip ascii asin asinh atan atan2 atanh base64 bigint bin binary bit_count bit_get bit_length boolean bround
    btrim cardinality cast cbrt ceil ceiling char char_length character_length chr coalesce concat concat_ws contains
    conv cos cosh cot crc32 csc date date_add date_diff date_format date_from_unix_date date_part date_sub date_trunc
    dateadd datediff datepart day dayname dayofmonth dayofweek dayofyear decimal decode degrees double element_at elt
    encode endswith equal_null exists exp expm1 extract factorial filter find_in_set flatten float floor forall
    format_number format_string from_unixtime from_utc_timestamp get get_json_object getbit greatest hash hex hour hypot
    if ifnull initcap instr int isnan isnotnull isnull json_array_length lcase least left len length levenshtein ln
    locate log log10 log1p log2 lower lpad ltrim make_date make_timestamp map map_keys map_values md5 minute mod month
    monthname months_between named_struct nanvl negative next_day nullif nullifzero nvl nvl2 octet_length overlay
    parse_url pmod position positive pow power printf quarter radians regexp_count regexp_extract regexp_extract_all
    regexp_instr regexp_like regexp_replace regexp_substr repeat replace reverse right rint round rpad rtrim sec second
    sequence sha sha1 sha2 shiftleft shiftright sign signum sin sinh size slice smallint sort_array soundex split
    split_part sqrt startswith string struct substr substring substring_index tan tanh timestamp timestamp_micros
    timestamp_millis timestamp_seconds tinyint to_char to_date to_number to_timestamp to_unix_timestamp to_utc_timestamp
    transform translate trim trunc try_add try_cast try_divide try_element_at try_multiply try_subtract try_to_number
    try_to_timestamp typeof ucase unbase64 unhex unix_date unix_micros unix_millis unix_seconds upper url_decode
    url_encode varchar weekday weekofyear width_bucket xxhash64 year zeroifnull zip_with
    """.split()
)
# Words of the language itself, after which a parenthesis calls nothing.
_WORDS = frozenset(
    "all and any between both case distinct div else escape from ilike in interval is leading like not or regexp rlike "
    "some then to trailing when xor".split()
)
_CHANGING = frozenset(
    "rand randn random randstr uniform uuid shuffle monotonically_increasing_id spark_partition_id input_file_name "
    "input_file_block_start input_file_block_length".split()
)
_CLOCKS = frozenset(
    "now current_timestamp current_date curdate current_time current_timezone localtimestamp unix_timestamp".split()
)
_PARENLESS = frozenset(
    "current_timestamp current_date current_time localtimestamp current_user session_user user current_catalog "
    "current_database current_schema".split()
)
_CALLS_NOTHING = (TokenType.STRING, TokenType.NUMBER, TokenType.R_PAREN, TokenType.R_BRACKET)


def check_functions(sql: str, columns: Schema) -> None:
    """Refuses a condition that calls anything but functions of the row.

    Args:
        sql: the text, which parsed.
        columns: the table's columns; one may be called like a function without parentheses.

    Raises:
        SettingsError: naming the function, why it is refused, and near ones.
    """
    if "${" in sql:
        raise SettingsError(
            "--where holds ${…}, which Spark replaces by settings or variables of the environment",
            found=bounded(sql),
            hint="write the value itself",
        )
    tokens = sqlglot.tokenize(sql, dialect="spark")
    for name in _called(tokens):
        if name not in ROW_FUNCTIONS and name not in _WORDS:
            raise _refused(name)
    known = {column.name.casefold() for column in columns}
    for token in tokens:
        word = token.text.casefold()
        quoted = token.token_type in (TokenType.STRING, TokenType.IDENTIFIER)
        if not quoted and word in _PARENLESS and word not in known:
            raise _refused(word)


def _called(tokens: list[Token]) -> Iterator[str]:
    """What stands before each parenthesis, where that is a word or a call's result."""
    for before, token in itertools.pairwise(tokens):
        if token.token_type != TokenType.L_PAREN:
            continue
        word = before.text.casefold()
        if before.token_type in _CALLS_NOTHING:
            yield before.text
        elif before.token_type == TokenType.IDENTIFIER or word[:1].isalpha() or word[:1] in "_@$":
            yield word


def _refused(name: str) -> SettingsError:
    if name in _CLOCKS:
        why, hint = "which depends on the time of the run", "name the time, for example ds >= '2026-11-21'"
    elif name in _CHANGING:
        why, hint = "which differs when the same rows are read again", "select rows by their own columns"
    else:
        why = "which is not known to depend on the row alone"
        hint = "compute it when the input is written, or read a view that has it as a column"
    return SettingsError(
        f"--where calls {bounded(name, 80)}, {why}",
        near=nearest(name, ROW_FUNCTIONS),
        allowed=("functions of the row, such as upper, coalesce, date_trunc, regexp_like",),
        hint=hint,
    )
