from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscore.contracts import SourceFile, segments
from batchscore.contracts.sources import MIN_SEGMENT_ROWS, SEGMENTS_A_FILE
from batchscore.plan.splitting import TASK_SECONDS, joined, make_tasks


@st.composite
def source_files(draw):
    files = []
    for index in range(draw(st.integers(1, 12))):
        groups = tuple(draw(st.lists(st.integers(0, 9_000), max_size=8)))
        rows = sum(groups) if groups else draw(st.integers(-1, 40_000))
        ds = draw(st.sampled_from(["a", "b", None]))
        files.append(SourceFile(f"f{index}", draw(st.integers(1, 10**6)), "1:abc", rows, groups, (("ds", ds),)))
    return files


def covered(files, tasks):
    groups = {file.path: list(range(len(file.row_groups))) for file in files}
    seen: dict[str, list] = {}
    for task in tasks:
        for split in task:
            own = split.row_groups
            seen.setdefault(split.path, []).extend(groups[split.path] or ["whole"] if own is None else own)
    return {path: sorted(map(str, found)) for path, found in seen.items()}, {
        path: sorted(map(str, indices or ["whole"])) for path, indices in groups.items()
    }


@given(source_files(), st.integers(1, 9), st.integers(1, 20_000))
def test_every_row_group_is_read_exactly_once(files, cores, rows_per_task):
    tasks = make_tasks(files, cores=cores, rows_per_task=rows_per_task)
    found, expected = covered(files, tasks)
    assert found == expected
    assert all(task for task in tasks)


@given(source_files(), st.integers(1, 9), st.randoms())
def test_the_order_of_the_files_does_not_matter(files, cores, random):
    expected = make_tasks(files, cores=cores)
    random.shuffle(files)
    assert make_tasks(files, cores=cores) == expected


@given(source_files(), st.integers(1, 9))
def test_splits_carry_the_files_own_facts(files, cores):
    by_path = {file.path: file for file in files}
    for split in (split for task in make_tasks(files, cores=cores) for split in task):
        file = by_path[split.path]
        assert (split.file_size, split.stamp, split.partition) == (file.size, file.stamp, file.partition)
        if split.row_groups is not None:
            assert split.rows == sum(file.row_groups[index] for index in split.row_groups)


@pytest.mark.parametrize("cores", [1, 2, 3, 7])
def test_one_large_file_uses_all_cores(cores):
    file = SourceFile("big", 10**9, "", 1_000_000, (10_000,) * 100)
    tasks = make_tasks([file], cores=cores)
    rows = [sum(split.rows for split in task) for task in tasks]
    assert len(rows) == cores
    assert max(rows) - min(rows) <= 2 * cores * 40_000


@given(st.lists(st.integers(0, 20_000), max_size=40), st.integers(1, 9), st.integers(1, 9), st.floats(1, 1e8))
def test_cuts_lie_between_segments_whatever_the_cores_and_the_speed(groups, cores, others, speed):
    file = SourceFile("f", 10**6, "1:abc", sum(groups), tuple(groups))
    of_some = joined(make_tasks([file], cores=cores, rows_per_task=10_000), cores=cores, rows_per_second=speed)
    for tasks in (of_some, make_tasks([file], cores=others, rows_per_task=30_000)):
        for split in (split for task in tasks for split in task):
            chosen = set(range(len(groups)) if split.row_groups is None else split.row_groups)
            assert all(chosen.issuperset(segment) or chosen.isdisjoint(segment) for segment in segments(groups))


@given(st.lists(st.integers(0, 200_000), max_size=60))
def test_segments_are_all_row_groups_in_order_and_many_enough(groups):
    found = segments(groups)
    assert [index for segment in found for index in segment] == list(range(len(groups)))
    rows = [sum(groups[index] for index in segment) for segment in found]
    assert all(count >= MIN_SEGMENT_ROWS for count in rows[:-1])
    widest = max(groups, default=0)
    assert all(count < max(MIN_SEGMENT_ROWS, sum(groups) // SEGMENTS_A_FILE) + widest + 1 for count in rows)


def test_many_small_files_share_a_task():
    files = [SourceFile(f"f{index:04}", 10_000, "", 100) for index in range(1_000)]
    assert [len(task) for task in make_tasks(files, cores=2)] == [500, 500]


def test_more_rows_than_a_task_holds_make_whole_waves():
    files = [SourceFile(f"f{index:02}", 10_000, "", 1_000) for index in range(50)]
    tasks = make_tasks(files, cores=4, rows_per_task=10_000)
    assert len(tasks) == 8
    assert max(sum(split.rows for split in task) for task in tasks) <= 7_000


def test_files_of_one_partition_stay_together():
    files = [SourceFile(f"f{index}", 10, "", 100, (), (("ds", "ab"[index % 2]),)) for index in range(10)]
    first, second = make_tasks(files, cores=2)
    assert {split.partition for split in first} == {(("ds", "a"),)}
    assert {split.partition for split in second} == {(("ds", "b"),)}


def test_files_of_unknown_rows_are_balanced_by_size():
    files = [SourceFile("a", 600, "", -1), *(SourceFile(f"b{index}", 100, "", -1) for index in range(6))]
    assert [len(task) for task in make_tasks(files, cores=2)] == [1, 6]


def test_no_files_no_tasks():
    assert make_tasks([], cores=4) == ()


@pytest.mark.parametrize(("cores", "rows"), [(0, 1), (1, 0)])
def test_nonsense_is_refused(cores, rows):
    with pytest.raises(ValueError, match="positive"):
        make_tasks([], cores=cores, rows_per_task=rows)


def in_order(tasks):
    return [(split.path, group) for task in tasks for split in task for group in split.row_groups or [None]]


@given(source_files(), st.integers(1, 9), st.floats(1, 1e8))
def test_joined_tasks_read_the_same_in_the_same_order(files, cores, speed):
    tasks = make_tasks(files, cores=cores, rows_per_task=2_000)
    merged = joined(tasks, cores=cores, rows_per_second=speed)
    assert covered(files, merged) == covered(files, tasks)
    assert in_order(merged) == in_order(tasks)
    assert len(merged) <= len(tasks)


def test_pieces_of_one_file_that_are_joined_are_read_as_one():
    [file] = [SourceFile("big", 10**6, "1:abc", 100_000, (5_000,) * 20)]
    merged = joined(make_tasks([file], cores=2, rows_per_task=5_000), cores=2, rows_per_second=1e6)
    assert all(len(task) == 1 for task in merged)
    assert sum(split.rows for task in merged for split in task) == 100_000
    assert sum(split.size for task in merged for split in task) == 10**6
    assert len(merged) < 20


def test_a_slow_engines_tasks_stay_small_and_a_fast_ones_are_bounded():
    files = [SourceFile(f"f{index:03}", 10_000_000, "", 500_000) for index in range(200)]
    tasks = make_tasks(files, cores=4, rows_per_task=500_000)
    assert joined(tasks, cores=4, rows_per_second=50_000) == tasks
    fast = joined(tasks, cores=4, rows_per_second=1e7)
    rows = [sum(split.rows for split in task) for task in fast]
    assert max(rows) <= TASK_SECONDS * 1e7
    assert len(tasks) / 12 < len(fast) < len(tasks) / 4
    assert rows[-1] == 500_000


def test_files_whose_rows_are_unknown_are_not_joined():
    tasks = make_tasks([SourceFile(f"f{index}", 1_000, "", -1) for index in range(8)], cores=2, rows_per_task=10)
    assert joined(tasks, cores=2, rows_per_second=1e9) == tasks
