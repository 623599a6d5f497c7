"""A warm start never brings in what tonight is measured by."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from infra.artifacts import Manifest, write_artifact
from infra.errors import GateRefused, UsageError
from infra.graph import NO_DAY, Graph
from infra.settings import EncoderSettings, RunSettings, Settings
from infra.store import ObjectStore, open_store
from jobs.context import Parent
from jobs.encoder_process import Task, train_here
from jobs.encoder_processes import train_together
from jobs.warm_start import known_held_out, open_named, refuse_earlier_leaks, refuse_leak
from tests.suites.planted import assemble, planted_graph

ENCODER = EncoderSettings(dimensions=16, hidden=16, max_steps=4, batch_size=512, fanout=4, device="cpu")
NAMED = "20260101T000000Z-0123456789abcdef"


def friendships(graph: Graph, view: str) -> set[frozenset[int]]:
    """Pairs of user ids, one at a time."""
    connections = graph.view(view).connections  # type: ignore[arg-type]
    return {
        frozenset((int(graph.ids[row]), int(graph.ids[other])))
        for row in range(graph.users)
        for other in connections.row(row)
    }


def without_first_user(graph: Graph) -> Graph:
    """The same network before the user of the lowest id joined: everyone has another row."""
    row = np.repeat(np.arange(graph.users), graph.past.connections.degrees())
    pairs = np.stack([row, graph.past.connections.indices], axis=1)
    pairs = pairs[(pairs[:, 0] < pairs[:, 1]) & (pairs > 0).all(1)] - 1
    held = graph.held_out[(graph.held_out > 0).all(1)] - 1
    clubs = dataclasses.replace(
        graph.past.affiliations,
        indptr=graph.past.affiliations.indptr[1:] - graph.past.affiliations.indptr[1],
        indices=np.asarray(graph.past.affiliations.indices[graph.past.affiliations.indptr[1] :]),
        values=None,
    )
    fewer = assemble(pairs, held, graph.attribute_codes[:, 1:], graph.cardinalities, clubs, graph.split[1:])
    return dataclasses.replace(fewer, ids=graph.ids[1:])


def later(graph: Graph, new: int = 20) -> Graph:
    """The network of a later as-of: its past view is the now view of `graph`, `new` friendships of since are held out.

    Only what a leak is told by: its now view is left as it was.
    """
    strangers = np.argwhere(np.triu(~dense(graph), 1))
    held = strangers[np.random.default_rng(3).choice(len(strangers), new, replace=False)].astype(np.int32)
    return dataclasses.replace(graph, past=graph.now, held_out=held, held_out_day=np.full(new, NO_DAY, np.int32))


def test_known_pairs_are_those_of_a_search_through_both_graphs() -> None:
    graph = planted_graph()
    moved = without_first_user(graph)
    row = np.repeat(np.arange(graph.users), graph.past.connections.degrees())
    past = np.stack([row, graph.past.connections.indices], axis=1)[::7]
    days = np.concatenate([graph.held_out_day, np.full(len(past), NO_DAY)])
    now = dataclasses.replace(
        graph, held_out=np.concatenate([graph.held_out, past]).astype(np.int32), held_out_day=days.astype(np.int32)
    )
    learnt = friendships(moved, "past")
    expected = [i for i, pair in enumerate(now.held_out) if frozenset(map(int, now.ids[pair])) in learnt]
    found = known_held_out(moved, now)
    assert found.tolist() == expected
    assert 0 < len(expected) < len(past)


def test_the_encoder_of_a_later_night_is_refused_and_the_message_says_what_to_name() -> None:
    graph = planted_graph()
    said = rf"leak: encoder.warm_start: encoder {NAMED} was trained on {len(graph.held_out)} of the .* holds out"
    with pytest.raises(GateRefused, match=said) as refused:
        refuse_leak(NAMED, later(graph), graph)
    assert "Name an encoder of an earlier as-of" in refused.value.fix
    one, other = graph.ids[graph.held_out[0]]
    assert f"such as that of users {one} and {other}" in refused.value.what


def test_who_parted_and_became_friends_again_since_is_no_leak() -> None:
    graph = planted_graph()
    before = later(graph)
    days = np.full(len(graph.held_out), before.as_of_day - 1, np.int32)
    days[3:] = before.as_of_day
    assert known_held_out(before, dataclasses.replace(graph, held_out_day=days)).tolist() == [0, 1, 2]


def test_the_encoder_of_another_seed_is_refused_where_time_decides_nothing() -> None:
    graph = planted_graph()
    pairs = np.array([sorted(pair) for pair in map(tuple, np.argwhere(dense(graph)))])
    pairs = np.unique(pairs, axis=0)
    held = np.random.default_rng(99).random(len(pairs)) < 0.1
    other = assemble(
        pairs[~held], pairs[held], graph.attribute_codes, graph.cardinalities, graph.past.affiliations, graph.split
    )
    with pytest.raises(GateRefused, match=r"leak: encoder\.warm_start"):
        refuse_leak(NAMED, other, graph)


def dense(graph: Graph) -> np.ndarray:
    found = np.zeros((graph.users, graph.users), bool)
    now = graph.now.connections
    found[np.repeat(np.arange(graph.users), now.degrees()), now.indices] = True
    return found


def test_an_earlier_night_and_the_same_night_are_taken() -> None:
    graph = planted_graph()
    refuse_leak(NAMED, graph, graph)
    refuse_leak(NAMED, without_first_user(graph), graph)
    refuse_leak(NAMED, graph, later(graph))
    refuse_leak(NAMED, planted_graph(users=0), graph)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_nothing_is_trained_from_a_leak(tmp_path: Path, processes: int) -> None:
    graph = planted_graph()
    for name, one in (("old", later(graph)), ("new", graph)):
        one.save(tmp_path / name)
    for folder in (tmp_path / NAMED / "data", tmp_path / "made"):
        folder.mkdir(parents=True)
    encoder = ENCODER.model_copy(update={"processes": processes})
    start = (tmp_path / NAMED / "data", tmp_path / "old")
    task = Task(Settings(run=RunSettings(threads=1), encoder=encoder), tmp_path / "new", tmp_path / "made", start=start)
    train = train_together if processes > 1 else train_here
    with pytest.raises(GateRefused, match=rf"leak: encoder\.warm_start: encoder {NAMED}"):
        train(task, lambda line: None)
    assert not list((tmp_path / "made").iterdir())


def test_a_hold_out_that_begins_earlier_than_the_night_before_is_said() -> None:
    graph = dataclasses.replace(planted_graph(), cutoff_day=19_990)
    before = dataclasses.replace(later(graph), cutoff_day=19_993)
    with pytest.raises(GateRefused, match=r"came from 2024-09-24 on, .* from 2024-09-27 on: .* wave of bans"):
        refuse_leak(NAMED, before, graph)
    with pytest.raises(GateRefused) as refused:
        refuse_leak(NAMED, before, dataclasses.replace(graph, cutoff_day=19_994))
    assert "wave" not in refused.value.what


def finished(store: ObjectStore, kind: str, number: int, parents: dict[str, str], graph: Graph | None = None) -> str:
    """An artifact of nothing but its graph, if it is one."""
    folder, wanted = store.scratch(), f"20260101T000000Z-{number:016x}"
    (folder / "data").mkdir()
    if graph:
        graph.save(folder / "data")
    write_artifact(store, folder, Manifest(kind, wanted, "2026-01-01T00:00:00Z", parents, {}, 17, "1", 1, "hash", ()))
    return wanted


def test_an_encoder_that_descends_from_one_that_knows_is_refused(tmp_path: Path) -> None:
    """The first of three knew the pairs; who they were was gone from the graphs of the others."""
    graph, store = planted_graph(), open_store(str(tmp_path / "store"), create=True)
    nobody = planted_graph(users=0)
    first = finished(store, "encoder", 1, {"graph": finished(store, "graph", 1, {}, later(graph))})
    bare = finished(store, "graph", 2, {}, nobody)
    second = finished(store, "encoder", 2, {"graph": bare, "warm_start": first})
    named = finished(store, "encoder", 3, {"graph": bare, "warm_start": second})
    graph.save(tmp_path / "now")
    opened = {
        name: Parent(one.manifest.artifact_id, one.path, "", {}) for name, one in open_named(store, named).items()
    }
    refuse_leak(named, nobody, graph)
    with pytest.raises(GateRefused, match=f"encoder {first}, from which {named} descends, was trained on"):
        refuse_earlier_leaks(opened | {"graph": Parent("now", tmp_path / "now", "", {})})


@pytest.mark.parametrize("gone", ["graph", "encoder"])
def test_an_encoder_of_whose_ancestors_nobody_can_tell_is_refused(tmp_path: Path, gone: str) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    graph = finished(store, "graph", 1, {}, planted_graph(users=0))
    first = finished(store, "encoder", 1, {"graph": graph})
    other = finished(store, "graph", 2, {}, planted_graph(users=0))
    second = finished(store, "encoder", 2, {"graph": other, "warm_start": first})
    assert set(open_named(store, second)) == {"warm_start", "warm_start_graph", f"warm_start_graph/{first}"}
    store.delete_folder(f"{gone}/{first if gone == 'encoder' else graph}/")
    with pytest.raises(UsageError, match=f"encoder {second} descends from {first}") as refused:
        open_named(store, second)
    assert "leave the setting empty" in refused.value.fix
