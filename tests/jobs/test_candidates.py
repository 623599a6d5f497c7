"""Candidates, features and the ranker as stages: what they write, and that it does not depend on how work was cut."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from index.sharded import IndexSpec, build_shard, finish
from infra.graph import LEARN, Csr, Graph
from infra.schemas import CANDIDATES
from infra.settings import Settings, load
from jobs import candidates, features, train_ranker
from jobs.blocks import asked_users, parts_of, read_parts
from jobs.context import Parent, StageContext, StageResult
from lookup_api.ranking.features import FEATURES, PAIR_FEATURES, USER_FEATURES
from lookup_api.ranking.ranker import Ranker
from tests.lookup_api.ranking.networks import small_graph

SPLIT = LEARN
AS_OF = datetime(2026, 1, 1, tzinfo=UTC)


def one_by_one(function: Callable[[int], dict[str, Any]], blocks: int) -> list[dict[str, Any]]:
    return [function(block) for block in range(blocks)]


def backwards(function: Callable[[int], dict[str, Any]], blocks: int) -> list[dict[str, Any]]:
    return [function(block) for block in reversed(range(blocks))]


class Stages:
    """Runs the three stages over one graph; each run in folders of its own."""

    def __init__(self, root: Path, graph: Graph, settings: Settings) -> None:
        self.root, self.graph, self.settings = root, graph, settings
        self.paths = {"graph": root / "graph", "embeddings": root / "embeddings", "index": root / "index"}
        graph.save(self.paths["graph"])
        self.paths["embeddings"].mkdir()
        spec = IndexSpec.from_settings(settings.index, settings.run.seed)
        for number, view in enumerate(("past", "now")):
            vectors = np.random.default_rng(number).normal(size=(graph.users, 8)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            np.save(self.paths["embeddings"] / f"{view}.npy", vectors)
            for shard in range(spec.shards):
                build_shard(vectors, spec, shard, self.paths["index"] / view)
            finish(self.paths["index"] / view, spec)

    def context(self, kind: str) -> StageContext:
        out = self.root / kind
        out.mkdir()
        inputs = {name: Parent(name, path, "", {}) for name, path in self.paths.items()}
        self.paths[kind] = out
        return StageContext(
            self.settings,
            datetime(2026, 1, 1, tzinfo=UTC),
            "",
            inputs,
            out,
            lambda: pytest.fail("no Spark"),
            lambda _: None,
        )

    def run(self, run_all: Any = one_by_one) -> dict[str, StageResult]:
        made = {"candidates": candidates.make(self.context("candidates"), run_all)}
        made["features"] = features.make(self.context("features"), run_all)
        made["ranker"] = train_ranker.run(self.context("ranker"))
        return made


def settled_friends(graph: Graph) -> Csr:
    """Held-out friends among those who had friends before."""
    known = np.flatnonzero(graph.past.connections.degrees())
    kept = graph.held_out[np.isin(graph.held_out, known).all(axis=1)]
    return replace(graph, held_out=kept).held_out_of()


def settings_of(**flags: str) -> Settings:
    small = {"candidates.per_user": "50", "candidates.ann": "20", "ranker.trees": "20"}
    return load(None, small | {name.replace("__", "."): value for name, value in flags.items()}, {})[0]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Stages, dict[str, StageResult]]:
    made = Stages(tmp_path_factory.mktemp("stages"), small_graph(), settings_of())
    return made, made.run()


def test_candidates_are_written_in_order_and_exclude_who_must_not_be_shown(
    stages: tuple[Stages, dict[str, StageResult]],
) -> None:
    made, results = stages
    rows = 0
    for view in ("past", "now"):
        for table in read_parts(made.paths["candidates"] / view):
            assert table.schema.equals(CANDIDATES)
            user, other = table["user_row"].to_numpy(), table["candidate_row"].to_numpy()
            rows += len(user)
            assert (np.diff(user.astype(np.int64) * made.graph.users + other) > 0).all()
            friends = made.graph.view(view).connections  # type: ignore[arg-type]
            for one in np.unique(user):
                named = other[user == one]
                assert not np.isin(named, [one, *friends.row(one)]).any()
                if view == "now":
                    assert not np.isin(named, made.graph.excluded.row(one)).any()
    assert rows == results["candidates"].rows


def test_features_stand_beside_the_candidates(stages: tuple[Stages, dict[str, StageResult]]) -> None:
    made, _ = stages
    for view in ("past", "now"):
        named, measured = (made.paths[kind] / view for kind in ("candidates", "features"))
        assert [p.name for p in parts_of(named)] == [p.name for p in parts_of(measured)]
        for one, other in zip(read_parts(named), read_parts(measured), strict=True):
            assert other.select(CANDIDATES.names).equals(one)
            assert other.column_names == [*CANDIDATES.names, *PAIR_FEATURES]
        assert np.load(measured / "user_features.npy").shape == (made.graph.users, len(USER_FEATURES))
    # The factors of past have served once its pairs are measured; new users are ranked with those of now.
    assert np.load(measured / features.FACTORS).shape[:2] == (2, made.graph.users)
    assert not (made.paths["features"] / "past" / features.FACTORS).exists()


def test_how_the_work_is_cut_changes_nothing(stages: tuple[Stages, dict[str, StageResult]], tmp_path: Path) -> None:
    _, first = stages
    cut = Stages(tmp_path, small_graph(), settings_of(candidates__block="37", run__threads="1"))
    again = {"candidates": candidates.make(cut.context("candidates"), backwards)}
    again["features"] = features.make(cut.context("features"), backwards)
    for kind, result in again.items():
        assert result.content_hash == first[kind].content_hash
        assert result.rows == first[kind].rows


def test_the_ranker_learns_from_learn_users_alone(stages: tuple[Stages, dict[str, StageResult]]) -> None:
    made, results = stages
    lists = train_ranker.read_lists(made.graph, made.paths["features"] / "past", SPLIT)
    held = settled_friends(made.graph)
    asked = np.flatnonzero((made.graph.split == SPLIT) & (held.degrees() > 0))
    np.testing.assert_array_equal(lists.held, held.degrees()[asked])
    table = pq.read_table(parts_of(made.paths["features"] / "past")[0])
    mine = np.isin(table["user_row"].to_numpy(), asked)
    user, other = (table[name].to_numpy()[mine] for name in ("user_row", "candidate_row"))
    np.testing.assert_array_equal(lists.label, [b in held.row(a) for a, b in zip(user, other, strict=True)])
    assert lists.matrix.shape == (len(user), len(FEATURES))
    told = results["ranker"].metrics
    assert told["validation"]["ranker"]["ndcg_at_20"] >= 0.9 * told["validation"]["common_neighbours"]["ndcg_at_20"]
    assert Ranker.open(made.paths["ranker"]).score(lists.matrix).shape == lists.label.shape


def test_lists_past_the_limit_leave_whole_users_out(stages: tuple[Stages, dict[str, StageResult]]) -> None:
    made, _ = stages
    folder = made.paths["features"] / "past"
    every, some = (train_ranker.read_lists(made.graph, folder, SPLIT, limit) for limit in (10**9, 2_000))
    assert len(some.label) <= 2_000
    sizes = set(np.diff(every.offsets).tolist())
    assert set(np.diff(some.offsets).tolist()) <= sizes


@pytest.mark.parametrize("users", [1, 2, 45])
def test_graphs_with_next_to_nothing_in_them_still_give_a_ranker(users: int, tmp_path: Path) -> None:
    made = Stages(tmp_path, small_graph(users=users), settings_of())
    made.run()
    matrix = np.zeros((3, len(FEATURES)), np.float32)
    assert np.isfinite(Ranker.open(made.paths["ranker"]).score(matrix)).all()


def test_in_past_a_seeded_sample_of_those_with_a_held_out_friend_is_asked() -> None:
    graph = small_graph()
    concerned = np.unique(graph.held_out)
    np.testing.assert_array_equal(asked_users(graph, "past", 10**6, 1), concerned)
    few = asked_users(graph, "past", 10, 1)
    np.testing.assert_array_equal(few, asked_users(graph, "past", 10, 1))
    assert len(few) == 10
    assert np.isin(few, concerned).all()
    assert not np.array_equal(few, asked_users(graph, "past", 10, 2))
    np.testing.assert_array_equal(asked_users(graph, "now", 10, 1), np.arange(graph.users))
