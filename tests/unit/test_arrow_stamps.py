"""A file that another hand changes while it is read: never a silent mix."""

from __future__ import annotations

import os
from dataclasses import replace

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from batchscore.arrow.splits import read_split
from batchscore.arrow.stamps import FileState, check_same, check_time
from batchscore.contracts import Column, Restriction, Split
from batchscore.errors import InputError
from batchscore.read import check_unchanged, pin

COLUMNS = (Column("id", "long"), Column("x", "double"))
ROWS = 60_000
BATCH = 10_000


def contents(shift):
    """The same size and the same footer, whatever the shift: one value's bytes differ in a page."""
    ids = list(range(ROWS))
    xs = [float(index % 251) for index in range(ROWS)]
    xs[ROWS - 100] = 0.5 + shift
    return pa.table({"id": ids, "x": xs})


def write(path, shift=0.0):
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(contents(shift), path, row_group_size=ROWS // 3, **options)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.parquet")
    write(folder / "b.parquet")
    return folder


def split_of(source, name):
    [file] = [file for file in pin(str(source)).files if file.path.endswith(name)]
    return Split(file.path, file.rows, None, (), file.size, file.size, file.stamp)


def rewrite_pages(path):
    """Other pages under the same size and footer, as a writer in place leaves them."""
    before, size = path.stat().st_mtime_ns, path.stat().st_size
    write(path, shift=1.0)
    assert path.stat().st_size == size
    os.utime(path, ns=(before + 1_000, before + 1_000))


def replace_by_another(path):
    other = path.with_name(".other")
    write(other, shift=2.0)
    other.rename(path)


CHANGES = {
    "pages": rewrite_pages,
    "another file": replace_by_another,
    "time": lambda path: os.utime(path, ns=(1, 1)),
    "gone": lambda path: path.unlink(),
    "shorter": lambda path: os.truncate(path, path.stat().st_size - 8),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"PAR1"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("batches", [0, 1, ROWS // BATCH - 1, ROWS // BATCH])
def test_a_change_at_any_moment_is_an_error_that_names_the_file(source, change, batches):
    split = split_of(source, "a.parquet")
    reading = read_split(split, str(source), COLUMNS, None, BATCH)
    read = [next(reading) for _ in range(batches)]
    CHANGES[change](source / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet"):
        read.extend(reading)
    assert sum(batch.num_rows for batch in read) <= ROWS


def test_the_footer_alone_does_not_tell_these_contents_apart(source):
    """Else the test above would prove nothing."""
    digests = []
    for _ in range(2):
        digests.append(split_of(source, "a.parquet").stamp.partition(":")[2])
        rewrite_pages(source / "a.parquet")
    assert digests[0] == digests[1]


@pytest.mark.parametrize("columns", [(), (Column("absent", "string"),)])
def test_rows_that_are_counted_without_reading_are_looked_at_too(source, columns):
    reading = read_split(split_of(source, "a.parquet"), str(source), columns, None, BATCH)
    next(reading)
    rewrite_pages(source / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet changed while it was read"):
        list(reading)


def test_an_unchanged_file_and_a_new_one_beside_it_are_no_matter(source):
    split = split_of(source, "a.parquet")
    reading = read_split(split, str(source), COLUMNS, None, BATCH)
    first = next(reading)
    write(source / "c.parquet")
    assert first.num_rows + sum(batch.num_rows for batch in reading) == ROWS


@pytest.mark.parametrize("change", CHANGES)
def test_what_spark_has_read_is_compared_with_the_plan(source, change):
    pinned = pin(str(source))
    check_unchanged(pinned)
    write(source / "c.parquet")  # not in the plan, so not in the run
    check_unchanged(pinned)
    CHANGES[change](source / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet"):
        check_unchanged(pinned)


def test_only_parquet_has_files_that_may_change(source):
    pinned = pin(str(source), restriction=Restriction())
    (source / "b.parquet").unlink()
    check_unchanged(replace(pinned, kind="delta"))
    check_unchanged(replace(pinned, kind="catalog"))


def test_object_stores_tell_the_etag_and_whole_seconds():
    check_same("k", FileState(5, 0, "a"), FileState(5, 0, "a"))
    with pytest.raises(InputError, match="another ETag"):
        check_same("k", FileState(5, 0, "a"), FileState(5, 0, "b"))
    remote = pafs.SubTreeFileSystem("/", pafs.LocalFileSystem())  # any file system that is not the local one itself
    check_time("k", "1700000000123000000:f", remote, 1_700_000_000_000_000_000)
    with pytest.raises(InputError, match="modification time"):
        check_time("k", "1700000000123000000:f", remote, 1_700_000_001_000_000_000)
    with pytest.raises(InputError, match="modification time"):
        check_time("k", "1700000000123000000:f", pafs.LocalFileSystem(), 1_700_000_000_000_000_000)
    for stamp in ("", "dv:abc", "0:f"):
        check_time("k", stamp, pafs.LocalFileSystem(), 1)
