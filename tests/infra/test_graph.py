"""The graph artifact comes back as it was saved, and CSR rows equal a dictionary of sets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.errors import CorruptArtifact
from infra.graph import NO_DAY, Csr, Graph, View, open_array
from tests.suites.planted import planted_graph


@pytest.fixture(scope="module")
def graph() -> Graph:
    return planted_graph()


def test_rows_from_pairs_equal_a_dictionary_of_sets() -> None:
    draw = np.random.default_rng(2)
    pairs = np.unique(draw.integers(0, 30, (200, 2)), axis=0)
    shuffled = draw.permutation(pairs)
    csr = Csr.from_pairs(30, shuffled[:, 0], shuffled[:, 1], shuffled.sum(axis=1))
    assert (csr.rows, csr.entries) == (30, len(pairs))
    for row in range(30):
        expected = sorted(pairs[pairs[:, 0] == row][:, 1].tolist())
        assert csr.row(row).tolist() == expected
        assert csr.degrees()[row] == len(expected)
        assert csr.values is not None
        assert csr.values[csr.indptr[row] : csr.indptr[row + 1]].tolist() == [row + other for other in expected]


def test_entries_of_rows_are_those_of_one_row_after_another() -> None:
    graph = planted_graph()
    friends = graph.past.connections
    for rows in (np.array([7, 3, 3, 239], np.int32), np.arange(240), np.empty(0, np.int64)):
        expected = [int(other) for row in rows for other in friends.row(int(row))]
        assert friends.indices[friends.entries_of(rows)].tolist() == expected
    assert not Csr.empty(3).entries_of(np.array([2, 0])).size


@pytest.mark.parametrize("values", [None, np.float32])
def test_empty_rows_are_saved_and_opened(tmp_path: Path, values: Any) -> None:
    Csr.empty(3, values).save(tmp_path, "none")
    opened = Csr.open(tmp_path, "none")
    assert (opened.rows, opened.entries, opened.values is None) == (3, 0, values is None)


def test_a_graph_comes_back_memory_mapped_and_unchanged(graph: Graph, tmp_path: Path) -> None:
    graph.save(tmp_path)
    opened = Graph.open(tmp_path)
    before, after = graph.arrays(), opened.arrays()
    assert sorted(before) == sorted(after)
    for name, array in before.items():
        assert after[name].dtype == array.dtype, name
        np.testing.assert_array_equal(after[name], array, err_msg=name)
    assert isinstance(after["now/connections.indices"], np.memmap)
    for name in ("attributes", "cardinalities", "kinds", "hold_out", "as_of_day", "cutoff_day"):
        assert getattr(opened, name) == getattr(graph, name)


def test_arrays_are_named_as_their_files(graph: Graph, tmp_path: Path) -> None:
    graph.save(tmp_path)
    files = {path.relative_to(tmp_path).as_posix().removesuffix(".npy") for path in tmp_path.rglob("*.npy")}
    assert files == set(graph.arrays())


def test_a_graph_without_users_is_saved_and_opened(tmp_path: Path) -> None:
    none = np.empty(0, np.int32)
    view = View(Csr.empty(0, np.int32), Csr.empty(0, np.float32), Csr.empty(0, np.float32))
    empty = Graph(
        ids=np.empty(0, np.int64),
        split=np.empty(0, np.uint8),
        joined_day=none,
        attributes=(),
        cardinalities=(),
        attribute_codes=np.empty((0, 0), np.int32),
        kinds=(),
        entity_kind=np.empty(0, np.int16),
        held_out=np.empty((0, 2), np.int32),
        held_out_day=none,
        excluded=Csr.empty(0),
        past=view,
        now=view,
        hold_out="random",
        as_of_day=0,
    )
    empty.save(tmp_path)
    opened = Graph.open(tmp_path)
    assert opened.users == 0
    assert opened.rows_of(np.array([1, -1])).tolist() == [-1, -1]
    assert opened.held_out_of().entries == 0


def test_rows_of_ids_are_their_ranks_and_minus_one_for_strangers(graph: Graph) -> None:
    assert graph.rows_of(graph.ids[::-1]).tolist() == list(range(graph.users))[::-1]
    strangers = np.array([graph.ids[0] - 1, graph.ids[-1] + 1, np.iinfo(np.int64).max, np.iinfo(np.int64).min])
    assert graph.rows_of(strangers).tolist() == [-1] * 4


def test_held_out_friends_are_seen_from_both_sides(graph: Graph) -> None:
    both = {(a, b) for a, b in graph.held_out.tolist()} | {(b, a) for a, b in graph.held_out.tolist()}
    csr = graph.held_out_of()
    rows = np.repeat(np.arange(csr.rows), csr.degrees())
    assert set(zip(rows.tolist(), csr.indices.tolist(), strict=True)) == both


def test_a_newer_version_is_refused(graph: Graph, tmp_path: Path) -> None:
    graph.save(tmp_path)
    head = json.loads((tmp_path / "graph.json").read_text())
    (tmp_path / "graph.json").write_text(json.dumps(head | {"version": 99}))
    with pytest.raises(CorruptArtifact, match="graph version 99, this code reads 1"):
        Graph.open(tmp_path)


def test_arrays_are_read_without_pickle(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"Python objects in dtype|allow_pickle"):
        open_array(tmp_path / "objects.npy")


def test_no_day_is_before_every_day() -> None:
    assert np.iinfo(np.int32).min == NO_DAY
