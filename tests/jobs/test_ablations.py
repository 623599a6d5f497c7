"""Ablations: exactly the part is taken out, what knows much is missed, what is noise is not."""

import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.artifacts import Manifest, OpenArtifact
from infra.errors import GateRefused, UsageError
from jobs import train_ranker
from jobs.ablations import ABLATIONS, PARTS, SAID, ablate, ablate_release, names_of, take_out
from jobs.blocks import parts_of
from jobs.entries import contains
from jobs.held_out import choose_asked, rank_past
from jobs.metrics import find_hits, per_user
from jobs.train_ranker import read_splits
from lookup_api.ranking.features import PAIR_FEATURES, USER_FEATURES
from lookup_api.ranking.learning import SIGNALS, of_one_signal
from lookup_api.ranking.newcomers import FILE
from lookup_api.ranking.sources import ANN, NAMES
from tests.suites.planted import planted_graph
from tests.suites.small_release import SETTINGS, context, small_release


@pytest.fixture(scope="module")
def graph():
    return planted_graph(users=400, seed=3)


@pytest.fixture(scope="module")
def made(graph, tmp_path_factory):
    return small_release(tmp_path_factory.mktemp("release"), graph)


def ablated(made, graph, folder, *names):
    hidden = graph.held_out_of()
    asked = choose_asked(graph, hidden, 10_000, 17)
    return ablate(context(made, folder / "data"), hidden, asked, names)


def planted(made, folder, column: str, value):
    """The release with one pair feature of past replaced by value(table)."""
    shutil.copytree(made["features"].path, folder)
    for path in parts_of(folder / "past"):
        table = pq.read_table(path)
        at = table.schema.get_field_index(column)
        new = pa.array(np.asarray(value(table), np.float16))
        pq.write_table(table.set_column(at, table.schema.field(column), new), path)
    return {**made, "features": replace(made["features"], path=folder)}


@pytest.mark.parametrize("name", PARTS)
def test_the_part_and_nothing_else_is_taken_out(name, made, tmp_path):
    part, source = PARTS[name], made["features"].path / "past"
    take_out(part, source, tmp_path / "past")
    for path in parts_of(source):
        before, after = pq.read_table(path), pq.read_table(tmp_path / "past" / path.name)
        kept = [row for row in before.to_pylist() if row["sources"] & ~part.bits]
        assert after.schema == before.schema
        for row, left in zip(kept, after.to_pylist(), strict=True):
            assert left["sources"] == row["sources"] & ~part.bits
            for column in PAIR_FEATURES:
                other = part.columns.get(column, column)
                assert left[column] == (0 if other is None else row[other]), column
    users, left = np.load(source / "user_features.npy"), np.load(tmp_path / "past" / "user_features.npy")
    for at, column in enumerate(USER_FEATURES):
        other = part.user_columns.get(column, column)
        expected = np.zeros(len(users)) if other is None else users[:, USER_FEATURES.index(other)]
        assert np.array_equal(left[:, at], expected)


def test_every_part_names_what_exists():
    assert set(SAID) == set(ABLATIONS)
    for part in PARTS.values():
        assert set(part.columns) <= set(PAIR_FEATURES)
        assert set(part.user_columns) <= set(USER_FEATURES)
        assert part.bits & ~sum(NAMES) == 0
    assert PARTS["no_gnn"].bits == ANN
    assert [name for name in PAIR_FEATURES if "embedding" in name] == list(PARTS["no_gnn"].columns)


def test_a_part_that_knows_much_is_missed_and_noise_is_not(made, graph, tmp_path):
    hidden, draw = graph.held_out_of(), np.random.default_rng(0)

    def hint(table):
        rows = (table[name].to_numpy() for name in ("user_row", "candidate_row"))
        return contains(hidden, *rows) + 0.9 * draw.normal(size=len(table))

    knowing = planted(made, tmp_path / "features", "acted", hint)
    found = ablated(knowing, graph, tmp_path, "no_interactions", "no_gnn")
    told = found["no_interactions"]["metrics"]["recall@20"]
    assert told["ratio_interval"][0] > 1.02
    noise = found["no_gnn"]["metrics"]["recall@20"]
    assert noise["own"] == told["own"]
    assert noise["ratio"] < told["ratio"]
    assert noise["ratio_interval"][0] < 1


def test_the_ranker_is_missed_where_signals_must_be_weighed(made, graph, tmp_path):
    found = ablated(made, graph, tmp_path, "no_ranker", "no_profile", "no_exposure", "no_blend")
    assert found["no_ranker"]["metrics"]["recall@20"]["ratio"] > 1
    assert found["no_ranker"]["without"].endswith(")")
    assert found["no_profile"]["metrics"]["recall@20"]["difference"] > 0
    assert found["no_blend"]["metrics"]["recall@20"]["difference"] == 0  # there is none to leave out


def test_what_looks_like_a_leak_is_measured_not_refused(made, graph, tmp_path):
    """Whether the night leaks its own stage decides; with a part taken out, what is left may look worse than it is."""
    hidden = graph.held_out_of()

    def copy(table):
        return contains(hidden, *(table[name].to_numpy() for name in ("user_row", "candidate_row")))

    knowing = planted(made, tmp_path / "features", "acted", copy)
    with pytest.raises(GateRefused, match="acted"):
        train_ranker.run(context(knowing, tmp_path / "refused"))
    shutil.rmtree(tmp_path / "refused")
    assert ablated(knowing, graph, tmp_path, "no_interactions")["no_interactions"]["metrics"]["recall@20"]["ratio"] > 1


@pytest.mark.parametrize("exposure", [0.0, 0.5])
def test_without_the_ranker_everything_else_is_as_it_was(exposure, made, graph, tmp_path):
    """Prices, the blend and who ranks for newcomers: a ranker of one signal beside the release's other models."""
    rank = SETTINGS.rank.model_copy(update={"exposure": exposure, "blend": "mmr", "diversity": 0.3})
    settings = SETTINGS.model_copy(update={"rank": rank})
    hidden = graph.held_out_of()
    asked = choose_asked(graph, hidden, 10_000, 17)
    found = ablate(context(made, tmp_path / "data", settings), hidden, asked, ["no_ranker"])["no_ranker"]
    signal = found["without"].rsplit("(")[-1].rstrip(")")
    train, _ = read_splits(graph, made["features"].path / "past")
    folder = tmp_path / "ranker"
    folder.mkdir()
    of_one_signal(SIGNALS[signal], train).save(folder)
    shutil.copy(made["ranker"].path / FILE, folder)
    inputs = {kind: parent.path for kind, parent in made.items()} | {"ranker": folder}
    shown = rank_past(graph, inputs, hidden, asked, rank).shown
    expected = per_user(find_hits(shown, asked, hidden), hidden.degrees()[asked]).means()
    assert {name: value["other"] for name, value in found["metrics"].items()} == expected


def test_ablations_are_repeatable_and_leave_nothing_behind(made, graph, tmp_path):
    before = sorted(path for parent in made.values() for path in parent.path.rglob("*"))
    assert ablated(made, graph, tmp_path, "no_walk") == ablated(made, graph, tmp_path, "no_walk")
    assert before == sorted(path for parent in made.values() for path in parent.path.rglob("*"))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_finished_release_is_measured_by_the_settings_it_was_made_with(made, graph, tmp_path):
    def artifact(kind, parent):
        settings = {name: SETTINGS.section(name) for name in ("run", "candidates", "ranker", "rank")}
        values = {"rows": 0, "metrics": {}, "cost": {}, "files": (), "parents": {}, "code_version": "", "seed": 17}
        head = {"kind": kind, "artifact_id": parent.artifact_id, "as_of": "2024-10-04T00:00:00Z", "content_hash": ""}
        return OpenArtifact(parent.path, Manifest(**head, **values, settings=settings))

    release = {kind: artifact(kind, parent) for kind, parent in made.items()}
    assert ablate_release(release, ["no_walk"], lambda line: None) == ablated(made, graph, tmp_path, "no_walk")


def test_names_are_read_with_commas_and_an_unknown_one_is_refused():
    assert names_of("no_gnn, no_ranker") == ["no_gnn", "no_ranker"]
    with pytest.raises(UsageError, match="no_such: no such part"):
        names_of("no_gnn,no_such")
