"""The report: honest users, exact metrics, sound rankings, a page that stands alone."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from infra.errors import CorruptArtifact
from infra.graph import REPORT
from infra.settings import EvaluateSettings, GateSettings, RankSettings, Settings
from jobs import evaluate, gates
from jobs.held_out import choose_asked, rank_past
from jobs.heuristics import HEURISTICS
from jobs.integrity import check_rankings
from jobs.report.examples import reason_words
from jobs.report.projection import project
from jobs.report.show import copy_report, print_report, read_report
from lookup_api.ranking.sources import NAMES
from tests.suites.planted import bare_graph
from tests.suites.small_release import AS_OF, SETTINGS, context, small_release


@pytest.fixture(scope="module")
def graph(planted_release):
    return planted_release.graph


@pytest.fixture(scope="module")
def made(planted_release):
    return planted_release.made


@pytest.fixture(scope="module")
def reported(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    result = evaluate.run(context(made, folder))
    return result, folder


def test_only_users_kept_for_the_report_with_something_hidden_are_asked(graph):
    hidden = graph.held_out_of()
    asked = choose_asked(graph, hidden, 10_000, 1)
    expected = [r for r in range(graph.users) if graph.split[r] == REPORT and len(hidden.row(r))]
    assert asked.tolist() == expected
    few = choose_asked(graph, hidden, 30, 1)
    assert set(few) < set(expected)
    assert few.tolist() == choose_asked(graph, hidden, 30, 1).tolist()


def test_past_lists_name_no_friend_and_count_candidates_by_source(graph, made):
    hidden = graph.held_out_of()
    asked = choose_asked(graph, hidden, 10_000, 1)
    past = rank_past(graph, {kind: parent.path for kind, parent in made.items()}, hidden, asked, RankSettings())
    recall = past.recall
    pairs = pa.concat_tables([pq.read_table(p) for p in sorted((made["features"].path / "past").glob("*.parquet"))])
    rows = [
        (u, c, s)
        for u, c, s in zip(*(pairs[n].to_pylist() for n in ("user_row", "candidate_row", "sources")), strict=True)
        if u in set(asked.tolist())
    ]
    hits = [(u, c, s) for u, c, s in rows if c in hidden.row(u)]
    assert (recall.pairs, recall.hits) == (len(rows), len(hits))
    for bit, name in NAMES.items():
        assert recall.found[name] == sum(bool(s & bit) for _, _, s in hits)
        assert recall.found_alone[name] == sum(s == bit for _, _, s in hits)
    for user, found, plain in zip(asked, past.shown, past.by_score, strict=True):
        assert set(found) == set(plain)
        found = found[found >= 0]
        assert not set(found) & {user, *graph.past.connections.row(user).tolist()}
        assert set(found) <= {c for u, c, _ in rows if u == user}


def test_the_ranker_beats_chance_on_planted_communities(reported):
    metrics = reported[0].metrics
    assert metrics["recall@20"] > 0.4 > 2 * 20 / 240
    assert set(metrics["heuristics"]) == set(HEURISTICS)
    assert metrics["recall@20"] <= metrics["candidates"]["best_share@20"] + 0.2
    low, high = metrics["intervals"]["recall@20"]
    assert low < metrics["recall@20"] < high
    assert sum(band["users"] for band in metrics["bands"]) == metrics["asked_users"]


def test_the_best_heuristic_is_named_with_a_paired_interval(reported):
    metrics = reported[0].metrics
    for name, one in metrics["against_best"].items():
        values = {rival: found[name] for rival, found in metrics["heuristics"].items()}
        assert values[one["heuristic"]] == max(values.values()) == one["other"]
        assert one["ratio"] == pytest.approx(metrics[name] / one["other"])
        assert one["ratio_interval"][0] < one["ratio"] < one["ratio_interval"][1]


def test_recall_by_source_never_exceeds_that_of_the_list(reported):
    metrics = reported[0].metrics
    assert set(metrics["by_source"]) == set(NAMES.values())
    for found in metrics["by_source"].values():
        assert found["alone@20"] <= found["recall@20"] <= metrics["recall@20"]
    assert max(found["recall@20"] for found in metrics["by_source"].values()) > 0.5 * metrics["recall@20"]


def test_a_blend_is_shown_beside_the_lists_before_it(made, graph, tmp_path):
    blended = SETTINGS.model_copy(update={"rank": RankSettings(blend="mmr", diversity=0.9)})
    metrics = evaluate.run(context(made, tmp_path / "report", blended)).metrics
    assert metrics["unblended"]["similarity@20"] > metrics["similarity@20"]
    assert metrics["unblended"]["recall@20"] != metrics["recall@20"]
    assert "pymk before the blend" in (tmp_path / "report" / "report.html").read_text()


def test_what_is_asked_for_is_in_the_report(made, tmp_path):
    asked = EvaluateSettings(ablations=("no_gnn", "no_ranker"), backends=("exact", "hnsw"))
    metrics = evaluate.run(context(made, tmp_path / "report", SETTINGS.model_copy(update={"evaluate": asked}))).metrics
    report = read_report(tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert list(metrics["ablations"]) == ["no_gnn", "no_ranker"]
    assert [one["backend"] for one in report["ann"]] == ["ivf_pq (this release)", "exact", "hnsw"]
    assert 'id="ablations"' in page
    console = Console(record=True, width=160)
    print_report(console, report, None)
    assert "no_ranker" in console.export_text()


def test_sound_rankings_pass_the_gates(reported):
    metrics = reported[0].metrics
    assert set(metrics["faults"]) == set(gates.FAULTS)
    night = gates.Measured(AS_OF, metrics)
    assert gates.check(night, night, Settings()) == []
    assert metrics["ranked_share"] == 1


def test_the_same_inputs_give_the_same_hash_whatever_they_cost(made, reported, tmp_path):
    costly = {
        kind: replace(parent, manifest=dict(parent.manifest) | {"cost": {"wall_s": 99.0}})
        for kind, parent in made.items()
    }
    assert evaluate.run(context(costly, tmp_path)).content_hash == reported[0].content_hash


def test_the_page_stands_alone_and_shows_every_method_and_stage(reported):
    page = (reported[1] / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](https?:)?//""", page)
    assert page.count("<svg") >= 5
    for text in (*HEURISTICS, "train_encoder", "Adamic-Adar", "mutual connection"):
        assert text in page
    HTMLParser().feed(page)


class Outline(HTMLParser):
    """What of a page a reader without eyes is told."""

    def __init__(self):
        super().__init__()
        self.ids, self.links, self.plots, self.headers, self.tables, self.captions = [], [], [], [], 0, 0

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"][1:]] if tag == "a" and "href" in found else []
        self.plots += [found] if tag == "svg" else []
        self.headers += [found] if tag == "th" else []
        self.tables += tag == "table"
        self.captions += tag in ("caption", "summary")


def test_the_page_is_told_to_who_cannot_see_it(reported):
    outline = Outline()
    outline.feed((reported[1] / "report.html").read_text())
    assert outline.plots
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in outline.plots)
    assert all(header["scope"] in ("row", "col") for header in outline.headers)
    assert outline.captions == outline.tables
    assert outline.links
    assert set(outline.links) <= set(outline.ids)
    named = [name for name in outline.ids if not re.fullmatch(r"\w?[0-9a-f]{10,}|C\d_\d_[0-9a-f]+", name)]
    assert len(named) == len(set(named))


def test_a_report_of_an_older_version_is_still_a_page(reported):
    from jobs.report.page import render

    report = read_report(reported[1])
    for name in ("by_source", "against_best", "ablations", "unblended", "similarity@20"):
        del report["metrics"][name]
    for name in ("ann", "projection"):
        del report[name]
    for band in [*report["metrics"]["bands"], report["metrics"]["new_users"]]:
        del band["intervals"]
    del report["metrics"]["candidates"]["by_depth"]
    assert "Release report" in render(report)


def test_a_projection_is_that_of_a_singular_value_decomposition():
    vectors = np.random.default_rng(2).normal(size=(300, 8)) * np.arange(8, 0, -1)
    found = project(vectors.astype(np.float32), np.zeros(300, np.int64), 1)
    left, sizes, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    for axis, got in enumerate((found["x"], found["y"])):
        expected = left[:, axis] * sizes[axis]
        assert np.allclose(np.abs(got), np.abs(expected), atol=2e-3)
    assert found["shares"] == pytest.approx((sizes**2 / (sizes**2).sum())[:2], abs=1e-3)
    assert project(vectors[:2].astype(np.float32), np.zeros(2, np.int64), 1) == {}


def test_text_from_the_lake_is_escaped_in_the_page(reported, tmp_path):
    from jobs.report.page import render

    report = read_report(reported[1])
    nasty = {"kind": "same_attribute", "attribute": "school", "value": "<script>alert(1)</script>", "count": None}
    report["examples"][0]["items"][0]["reasons"] = [nasty]
    assert "<script>" not in render(report)


@pytest.mark.parametrize("users", [0, 1, 3])
def test_a_graph_without_friendships_is_reported_with_nulls(users, tmp_path):
    made = small_release(tmp_path / "release", bare_graph(users))
    result = evaluate.run(context(made, tmp_path / "report"))
    assert result.rows == 0
    assert result.metrics["recall@20"] is None
    assert not any(result.metrics["faults"].values())
    night = gates.Measured(AS_OF, result.metrics)
    assert not any(r.refuses for r in gates.check(night, night, Settings(gates=GateSettings(min_coverage=1.0))))
    report = read_report(tmp_path / "report")
    assert report["notes"]
    assert report["notes"][0] in (tmp_path / "report" / "report.html").read_text()


def spoil(made, tmp_path, change):
    """A copy of the rankings with its rows changed."""
    table = pa.concat_tables([pq.read_table(p) for p in sorted(made["rankings"].path.glob("*.parquet"))])
    columns = {name: table[name].to_numpy().copy() for name in ("user_id", "candidate_id", "rank", "score")}
    columns = change(columns) or columns
    pq.write_table(pa.table(columns), tmp_path / "part-00000.parquet")
    return tmp_path


def test_each_fault_in_rankings_is_counted(graph, made, tmp_path):
    def faults(change):
        folder = tmp_path / change.__name__
        folder.mkdir()
        found = check_rankings(graph, spoil(made, folder, change))["faults"]
        return {name: count for name, count in found.items() if count}

    friend = graph.ids[graph.now.connections.row(0)[0]]

    def sound(c):
        pass

    def itself(c):
        c["candidate_id"][3] = c["user_id"][3]

    def a_friend(c):
        c["candidate_id"][0] = friend

    def twice(c):
        c["candidate_id"][1] = c["candidate_id"][0]

    def unknown_candidate(c):
        c["candidate_id"][2] = 123456789

    def unknown_user(c):
        c["user_id"][c["user_id"] == graph.ids[-1]] = 2**62

    def missing(c):
        kept = c["user_id"] != graph.ids[5]
        return {name: column[kept] for name, column in c.items()}

    def order(c):
        c["rank"][0] = 2

    def score(c):
        c["score"][:2] = (float("nan"), float("inf"))

    assert faults(sound) == {}
    assert faults(itself) == {"itself": 1}
    assert faults(a_friend) == {"friend": 1}
    assert faults(twice) == {"twice": 1}
    assert faults(unknown_candidate) == {"unknown_candidate": 1}
    assert faults(missing) == {"missing": 1}
    assert set(faults(unknown_user)) == {"unknown_user", "missing"}
    assert faults(order)["order"] >= 1
    assert faults(score) == {"score": 2}


def test_the_report_is_copied_and_printed(reported, tmp_path):
    copy_report(reported[1], tmp_path / "out")
    report = read_report(tmp_path / "out")
    console = Console(record=True, width=160)
    print_report(console, report, tmp_path / "out" / "report.html")
    text = console.export_text()
    assert "recall@20" in text
    assert "personalised PageRank" in text
    assert orjson.dumps(report)


def test_a_damaged_report_is_refused(tmp_path):
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(CorruptArtifact, match=r"report\.json"):
        read_report(tmp_path)


def test_reasons_read_as_words():
    def reason(kind, attribute=None, value=None, count=None):
        return reason_words({"kind": kind, "attribute": attribute, "value": value, "count": count})

    assert reason("mutual_connections", count=12) == "12 mutual connections"
    assert reason("mutual_connections", count=1) == "1 mutual connection"
    assert reason("same_affiliation", "school", "17") == "same school: 17"
    assert reason("near_in_network") == "near in network"
