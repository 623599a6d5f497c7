"""Explaining a pair: every way to be shown or left out has its own answer, and the score is the ranking's."""

import json
import shutil
from dataclasses import replace

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index.sharded import IndexSpec, build_shard, finish
from infra.errors import UsageError
from infra.graph import Csr
from infra.settings import CandidateSettings, IndexSettings, RankSettings, Settings
from jobs.explain import explain
from lookup_api.ranking.sources import NAMES
from tests.suites.planted import planted_graph
from tests.suites.small_release import small_release

SETTINGS = Settings(
    candidates=CandidateSettings(ann=0, per_user=60, block=100),
    rank=RankSettings(per_user=20),
)


@pytest.fixture(scope="module")
def graph():
    graph = planted_graph()
    return replace(graph, excluded=Csr.from_pairs(graph.users, np.array([0, 7]), np.array([7, 0])))


@pytest.fixture(scope="module")
def folders(graph, tmp_path_factory):
    made = small_release(tmp_path_factory.mktemp("release"), graph, SETTINGS)
    candidates = made["candidates"].path.parent
    manifest = {"settings": {"candidates": SETTINGS.candidates.model_dump(), "run": SETTINGS.run.model_dump()}}
    # The fixture keeps data in a folder of its kind, so this is beside every data folder, as a manifest is.
    (candidates / "manifest.json").write_text(json.dumps(manifest))
    return {kind: parent.path for kind, parent in made.items()}


@pytest.fixture(scope="module")
def rankings(folders):
    return pa.concat_tables([pq.read_table(p) for p in sorted(folders["rankings"].glob("*.parquet"))]).to_pylist()


def asked(folders, user, candidate):
    found = explain(folders, int(user), int(candidate))
    orjson.dumps(found)
    return found


def test_somebody_shown_has_rank_score_sources_features_and_reasons(folders, rankings):
    for row in rankings[:: len(rankings) // 7]:
        found = asked(folders, row["user_id"], row["candidate_id"])
        assert found["shown"]
        assert (found["rank"], found["reasons"]) == (row["rank"], row["reasons"])
        assert found["score"] == pytest.approx(row["score"])
        assert found["sources"]
        assert set(found["sources"]) <= set(NAMES.values())
        assert found["pair_features"]
        assert set(found["user_features"]) == {"user", "candidate"}
        assert found["left_out_by"] is None
        assert f"rank {row['rank']}" in found["summary"]


def test_nobody_is_shown_to_themselves(graph, folders):
    assert asked(folders, graph.ids[3], graph.ids[3])["left_out_by"]["rule"] == "self"


def test_an_unknown_or_inactive_person_is_left_out_by_build_graph(graph, folders):
    for user, candidate in ((graph.ids[3], 2**60), (2**60, graph.ids[3])):
        by = asked(folders, user, candidate)["left_out_by"]
        assert (by["stage"], by["rule"]) == ("build_graph", "unknown_or_inactive")
        assert str(2**60) in by["detail"]


def test_refused_rows_of_the_lake_that_name_an_unknown_id_are_shown(graph, folders, tmp_path):
    named = {"table": "connections", "reason": "user_id is other_id", "row": '{"user_id": 77, "other_id": 77}'}
    other = {"table": "connections", "reason": "user_id is other_id", "row": '{"user_id": 177, "other_id": 177}'}
    path = folders["graph"] / "quarantine.parquet"
    pq.write_table(pa.Table.from_pylist([named, other]), path)
    try:
        assert asked(folders, graph.ids[3], 77)["left_out_by"]["quarantined"] == [named]
    finally:
        path.unlink()


def test_friends_are_left_out_as_connected(graph, folders):
    friend = graph.now.connections.row(5)[0]
    by = asked(folders, graph.ids[5], graph.ids[friend])["left_out_by"]
    assert by["rule"] == "connected"


def test_blocked_people_are_left_out_in_both_directions(graph, folders):
    for a, b in ((0, 7), (7, 0)):
        by = asked(folders, graph.ids[a], graph.ids[b])["left_out_by"]
        assert by["rule"] in ("blocked_or_dismissed", "connected")
    assert 7 not in graph.now.connections.row(0)


def test_a_candidate_below_the_cut_has_its_place_and_would_be_score(graph, folders, rankings):
    shown = {(row["user_id"], row["candidate_id"]): row["score"] for row in rankings}
    table = pq.read_table(sorted((folders["candidates"] / "now").glob("*.parquet"))[0])
    pairs = zip(graph.ids[table["user_row"]].tolist(), graph.ids[table["candidate_row"]].tolist(), strict=True)
    cut = [pair for pair in pairs if pair not in shown]
    assert cut
    for user, candidate in cut[:: len(cut) // 5]:
        by = asked(folders, user, candidate)["left_out_by"]
        assert (by["stage"], by["rule"]) == ("rank", "below_the_cut")
        assert by["kept"] == 20 < by["place"]
        assert by["would_be_score"] <= min(score for (u, _), score in shown.items() if u == user)


def test_somebody_no_source_kept_is_told_how_close_they_were(graph, folders):
    table = pq.read_table(sorted((folders["candidates"] / "now").glob("*.parquet"))[0])
    kept = set(table.filter(pa.compute.equal(table["user_row"], 4))["candidate_row"].to_pylist())
    outside = [r for r in range(graph.users) if r not in kept and r not in graph.now.connections.row(4) and r != 4]
    found = asked(folders, graph.ids[4], graph.ids[outside[0]])
    by = found["left_out_by"]
    assert (by["stage"], by["rule"]) == ("candidates", "not_a_candidate")
    assert by["kept"] == SETTINGS.candidates.per_user >= len(kept)
    assert np.isfinite(by["would_be_score"])
    assert found["pair_features"]


def test_a_person_who_was_close_is_given_sources_and_no_place_that_contradicts_the_cut(graph, folders):
    """Lists this long rank people otherwise than those of the night: a place in them may lie inside the cut."""
    table = pq.read_table(sorted((folders["candidates"] / "now").glob("*.parquet"))[0])
    kept = set(table.filter(pa.compute.equal(table["user_row"], 4))["candidate_row"].to_pylist())
    outside = set(range(graph.users)) - kept - set(graph.now.connections.row(4).tolist()) - {4}
    found = [asked(folders, graph.ids[4], graph.ids[row])["left_out_by"] for row in sorted(outside)[:40]]
    assert any(by["close_by"] for by in found)
    for by in found:
        assert "place" not in by
        assert by["detail"].startswith("not among the 60 candidates kept")
        assert set(by["close_by"]) <= set(NAMES.values())


def test_the_index_is_asked_for_as_many_as_in_the_night(graph, folders, tmp_path):
    """The 8 nearest by brute force, the user and friends among them, are all that the index may be said to name."""
    made_with = SETTINGS.candidates.model_copy(update={"ann": 8})
    manifest = {"settings": {"candidates": made_with.model_dump(), "run": SETTINGS.run.model_dump()}}
    candidates, index = tmp_path / "candidates" / "data", tmp_path / "index"
    shutil.copytree(folders["candidates"], candidates)
    (candidates.parent / "manifest.json").write_text(json.dumps(manifest))
    vectors = np.load(folders["embeddings"] / "now.npy")
    spec = IndexSpec.from_settings(IndexSettings(backend="exact", shards=1), seed=3)
    build_shard(vectors, spec, 0, index / "now")
    finish(index / "now", spec)
    nearest = set(np.argsort(-(vectors @ vectors[4]), kind="stable")[:8].tolist())
    everything = dict(folders) | {"candidates": candidates, "index": index}
    outside = set(range(graph.users)) - set(graph.now.connections.row(4).tolist()) - {4}
    by = {row: asked(everything, graph.ids[4], graph.ids[row])["left_out_by"] for row in sorted(outside)[::4]}
    by |= {row: asked(everything, graph.ids[4], graph.ids[row])["left_out_by"] for row in sorted(nearest & outside)}
    told = {row: found for row, found in by.items() if found and found["rule"] == "not_a_candidate"}
    named = {row for row, found in told.items() if "ann" in found["close_by"]}
    assert named == nearest & told.keys()
    assert named


@pytest.mark.parametrize(("user", "candidate", "said"), [(2**63, 1, "user"), (1, -(2**63) - 1, "candidate")])
def test_an_id_beyond_64_bits_is_refused(folders, user, candidate, said):
    with pytest.raises(UsageError, match=f"{said} -?9223372036854775[0-9]* is no id"):
        explain(folders, user, candidate)


def test_a_release_without_candidates_is_refused_by_name(folders):
    with pytest.raises(UsageError, match="no candidates"):
        explain({kind: path for kind, path in folders.items() if kind != "candidates"}, 1, 2)
