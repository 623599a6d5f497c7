"""Candidates, features and the ranker as stages: what they write, and that it does not depend on how work was cut."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.sharded import IndexSpec, build_shard, finish
from infra.graph import LEARN, REPORT, VALIDATE, Csr, Graph
from infra.schemas import CANDIDATES
from infra.settings import Settings, load
from jobs import candidates, features, train_ranker
from jobs.blocks import asked_users, parts_of, read_parts
from jobs.context import Parent, StageContext, StageResult
from lookup_api.ranking.features import FEATURES, PAIR_FEATURES, USER_FEATURES, assemble
from lookup_api.ranking.ranker import Ranker
from tests.lookup_api.ranking.networks import small_graph

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
        context = self.context_of(self.root / kind)
        self.paths[kind] = context.data
        return context

    def context_of(self, out: Path) -> StageContext:
        """A context that writes to a new folder, with what was made so far as inputs."""
        out.mkdir()
        inputs = {name: Parent(name, path, "", {}) for name, path in self.paths.items()}
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


def friends_that_count(graph: Graph, split: int) -> dict[int, set[int]]:
    """Held-out friends whom the lists of a split are judged by, pair by pair: both had friends before, none is of
    REPORT, and pairs of LEARN and VALIDATE are for validation."""
    counted: dict[int, set[int]] = {}
    for one, other in [*graph.held_out.tolist(), *graph.held_out[:, ::-1].tolist()]:
        settled = len(graph.past.connections.row(one)) > 0 and len(graph.past.connections.row(other)) > 0
        sides = (int(graph.split[one]), int(graph.split[other]))
        if settled and sides in ((LEARN, LEARN), (VALIDATE, VALIDATE), (VALIDATE, LEARN)) and sides[0] == split:
            counted.setdefault(one, set()).add(other)
    return counted


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
            assert other.column_names == [*CANDIDATES.names[:3], *PAIR_FEATURES]
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


def with_newcomer(graph: Graph) -> Graph:
    """The graph, but for someone with a held-out friend who had no friends before."""
    past = graph.past.connections
    learners = graph.split[graph.held_out] == LEARN
    newcomer = graph.held_out[learners.all(axis=1)][0, 1]
    row = np.repeat(np.arange(past.rows), past.degrees())
    kept = (row != newcomer) & (past.indices != newcomer)
    fewer = Csr.from_pairs(past.rows, row[kept], past.indices[kept], np.asarray(past.values)[kept])
    return replace(graph, past=replace(graph.past, connections=fewer))


@pytest.mark.parametrize("change", [lambda graph: graph, with_newcomer], ids=["all settled", "one newcomer"])
@pytest.mark.parametrize("split", [LEARN, VALIDATE])
def test_lists_mark_the_friendships_that_count_and_leave_the_other_held_out_ones_out(
    stages: tuple[Stages, dict[str, StageResult]], split: int, change: Callable[[Graph], Graph]
) -> None:
    made, _ = stages
    graph, folder = change(made.graph), made.paths["features"] / "past"
    lists = train_ranker.read_lists(graph, folder, split)
    counted, held = friends_that_count(graph, split), graph.held_out_of()
    users = np.load(folder / "user_features.npy")
    rows, labels, sizes = [], [], Counter[int]()
    for table in read_parts(folder):
        pairs = np.stack([table[name].to_numpy() for name in PAIR_FEATURES], axis=1)
        viewers, others = (table[name].to_pylist() for name in ("user_row", "candidate_row"))
        for at, (one, other) in enumerate(zip(viewers, others, strict=True)):
            yes = other in counted.get(one, ())
            shown = graph.split[other] in ((LEARN,) if split == LEARN else (LEARN, VALIDATE))
            if one in counted and (yes or (shown and other not in held.row(one))):
                rows.append(assemble(pairs[at : at + 1], users[one], users[[other]])[0])
                labels.append(yes)
                sizes[one] += 1
    assert sum(labels) > 10
    np.testing.assert_array_equal(lists.matrix, rows)
    np.testing.assert_array_equal(lists.label, labels)
    np.testing.assert_array_equal(np.diff(lists.offsets), list(sizes.values()))
    np.testing.assert_array_equal(lists.held, [len(counted[one]) for one in sizes])


def test_friends_of_newcomers_do_not_count(stages: tuple[Stages, dict[str, StageResult]]) -> None:
    made, _ = stages
    folder = made.paths["features"] / "past"
    before, after = (train_ranker.read_lists(graph, folder, LEARN) for graph in (made.graph, with_newcomer(made.graph)))
    assert after.label.sum() < before.label.sum()
    assert after.held.sum() < before.held.sum()


def test_held_out_friendships_of_report_users_do_not_change_the_ranker(
    stages: tuple[Stages, dict[str, StageResult]], tmp_path: Path
) -> None:
    made, results = stages
    graph = made.graph
    kept = ~(graph.split[graph.held_out] == REPORT).any(axis=1)
    reported = np.flatnonzero(graph.split == REPORT).astype(np.int32)
    learners = np.flatnonzero(graph.split == LEARN).astype(np.int32)[: len(reported)]
    other = np.concatenate([graph.held_out[kept], np.stack([reported[: len(learners)], learners], axis=1)])
    changed = replace(graph, held_out=np.sort(other, axis=1), held_out_day=np.full(len(other), 11_000, np.int32))
    changed.save(tmp_path)
    context = made.context_of(tmp_path / "ranker")
    again = train_ranker.run(replace(context, inputs=context.inputs | {"graph": Parent("graph", tmp_path, "", {})}))
    assert again.content_hash == results["ranker"].content_hash
    assert again.metrics == results["ranker"].metrics


def test_the_ranker_is_no_worse_than_common_neighbours(stages: tuple[Stages, dict[str, StageResult]]) -> None:
    made, results = stages
    told = results["ranker"].metrics
    assert told["validation"]["ranker"]["ndcg_at_20"] >= 0.9 * told["validation"]["common_neighbours"]["ndcg_at_20"]
    lists = train_ranker.read_lists(made.graph, made.paths["features"] / "past", LEARN)
    assert Ranker.open(made.paths["ranker"]).score(lists.matrix).shape == lists.label.shape


def test_lists_past_the_limit_leave_whole_users_out(stages: tuple[Stages, dict[str, StageResult]]) -> None:
    made, _ = stages
    folder = made.paths["features"] / "past"
    every, some = (train_ranker.read_lists(made.graph, folder, LEARN, limit) for limit in (10**9, 2_000))
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
