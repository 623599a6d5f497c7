"""What every kind of ranker promises, and what a network promises besides."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from infra.errors import CorruptArtifact
from infra.settings import RankerSettings, Settings
from jobs.blocks import parts_of
from jobs.scoring import Pairs, Scorer
from jobs.train_ranker import LEARNERS
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.ranker import KINDS, Ranker, linear
from lookup_api.ranking.ranker_ensemble import EnsembleRanker
from lookup_api.ranking.ranker_growth import TRUSTED_LISTS
from lookup_api.ranking.ranker_lists import ndcg, ndcgs, recall
from lookup_api.ranking.ranker_prior import default_prior
from tests.jobs.test_candidates import Stages, settings_of
from tests.lookup_api.ranking.networks import small_graph
from tests.suites.planted_lists import planted

VARIANTS = {
    "trees": RankerSettings(kind="trees", trees=40),
    "mlp": RankerSettings(kind="mlp", epochs=12),
    "mlp int8": RankerSettings(kind="mlp", epochs=12, precision="int8"),
    "ensemble": RankerSettings(kind="ensemble", epochs=12, trees=40),
}
FILES = {"trees": ["ranker.json"], "mlp": ["ranker.onnx"], "ensemble": ["ranker.json", "ranker.onnx"]}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


@lru_cache
def learnt(variant: str, queries: int = 600) -> tuple[Ranker, dict[str, Any]]:
    settings = Settings(ranker=VARIANTS[variant])
    return LEARNERS[settings.ranker.kind](planted(queries, 1), planted(queries // 3, 2), settings)


def test_every_kind_can_be_learnt_and_set() -> None:
    assert set(LEARNERS) - {"auto"} == set(KINDS) == {settings.kind for settings in VARIANTS.values()}


@pytest.mark.parametrize(
    ("queries", "kept_apart", "gains", "kind"),
    [(150, 450, False, "trees"), (2000, 450, True, "ensemble"), (2000, 350, True, "trees")],
)
def test_a_network_joins_the_trees_where_enough_users_kept_apart_gain_by_it(
    queries: int, kept_apart: int, gains: bool, kind: str
) -> None:
    train, check = planted(queries, 1), planted(kept_apart, 2)
    (chosen, told), (both, _) = (
        LEARNERS[kind](train, check, Settings(ranker=RankerSettings(kind=kind, epochs=12, trees=40)))
        for kind in ("auto", "ensemble")
    )
    assert isinstance(both, EnsembleRanker)
    tested = check.telling()
    gain = ndcgs(tested, both.score(tested.matrix)) - ndcgs(tested, both.trees.score(tested.matrix))
    error = gain.std(ddof=1) / np.sqrt(len(gain))
    assert (gain.mean() > error) == gains
    assert chosen.kind == kind
    assert chosen.content_hash() == (both if kind == "ensemble" else both.trees).content_hash()
    if kept_apart >= TRUSTED_LISTS:
        assert told["gain_by_network"] == pytest.approx({"ndcg_at_20": gain.mean(), "standard_error": error})
    assert ("best_epoch" in told) == (kind == "ensemble")


@every_variant
def test_a_saved_ranker_scores_as_the_trained_one(variant: str, tmp_path: Path) -> None:
    ranker, _ = learnt(variant)
    ranker.save(tmp_path)
    opened, matrix = Ranker.open(tmp_path), planted(20, 5).matrix
    scores = opened.score(matrix)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, ranker.score(matrix), atol=1e-5)
    assert opened.content_hash() == ranker.content_hash()
    assert opened.kind == ranker.kind == VARIANTS[variant].kind


@every_variant
def test_a_score_is_the_same_to_the_bit_whoever_is_scored_with_it(variant: str) -> None:
    ranker, _ = learnt(variant)
    matrix = planted(100, 5).matrix
    matrix[:, -16:] *= 300
    scores = ranker.score(matrix)
    for size in (1, 2, 3, 17, 300, 2047, 2048, 2049):
        parts = [ranker.score(matrix[start : start + size]) for start in range(0, min(len(matrix), 40 * size), size)]
        together = np.concatenate(parts)
        np.testing.assert_array_equal(together, scores[: len(together)], err_msg=f"{size} at a time")
    assert ranker.score(matrix[:0]).shape == (0,)


@every_variant
def test_it_adds_what_the_prior_cannot_see(variant: str) -> None:
    ranker, told = learnt(variant)
    fresh = planted(200, 9)
    assert ndcg(fresh, ranker.score(fresh.matrix)) > ndcg(fresh, linear(fresh.matrix, ranker.prior)) + 0.03
    assert next(iter(told["importance"])) in ("log_joint", "candidate_degree")
    assert sum(told["importance"].values()) == pytest.approx(1, abs=0.01)


@every_variant
@pytest.mark.parametrize("queries", [0, 3])
def test_with_hardly_a_label_the_defaults_rank(variant: str, queries: int) -> None:
    ranker, _ = learnt(variant, queries)
    matrix = planted(5).matrix
    np.testing.assert_array_equal(ranker.prior, default_prior())
    np.testing.assert_allclose(ranker.score(matrix), matrix.astype(np.float64) @ default_prior(), atol=1e-5)


@every_variant
def test_learning_again_gives_the_same_ranker(variant: str) -> None:
    ranker, told = learnt(variant)
    again, told_again = learnt.__wrapped__(variant)
    assert again.content_hash() == ranker.content_hash()
    assert told_again == told


@every_variant
def test_a_ranker_of_other_features_is_refused(variant: str, tmp_path: Path) -> None:
    learnt(variant, 0)[0].save(tmp_path)
    head = (tmp_path / "model.json").read_text()
    (tmp_path / "model.json").write_text(head.replace('"jaccard"', '"other"'))
    with pytest.raises(CorruptArtifact, match="other features"):
        Ranker.open(tmp_path)


@pytest.mark.parametrize("change", [{"version": 99}, {"kind": "oracle"}])
def test_a_ranker_of_an_unknown_version_or_kind_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    learnt("trees", 0)[0].save(tmp_path)
    head = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(head | change))
    with pytest.raises(CorruptArtifact, match="this code reads"):
        Ranker.open(tmp_path)


@every_variant
def test_a_damaged_model_is_refused(variant: str, tmp_path: Path) -> None:
    ranker, _ = learnt(variant)
    ranker.save(tmp_path)
    for name in FILES[ranker.kind]:
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CorruptArtifact, match=name):
            Ranker.open(tmp_path)
        (tmp_path / name).write_bytes(whole)
    assert Ranker.open(tmp_path).content_hash() == ranker.content_hash()


def test_an_ensemble_is_the_mean_of_its_parts() -> None:
    fresh = planted(20, 9).matrix
    parts = [learnt(name)[0].score(fresh) for name in ("trees", "mlp")]
    np.testing.assert_allclose(learnt("ensemble")[0].score(fresh), np.mean(parts, axis=0), atol=1e-5)


def test_int8_loses_less_than_a_hundredth_of_recall() -> None:
    fresh = planted(1000, 7)
    whole, eighth = (recall(fresh, learnt(name)[0].score(fresh.matrix)) for name in ("mlp", "mlp int8"))
    assert eighth > 0.99 * whole


def test_int8_holds_its_two_large_matrices_as_bytes() -> None:
    def kinds(variant: str) -> dict[str, int]:
        model = onnx.load_from_string(learnt(variant)[0].network)  # type: ignore[attr-defined]
        return {one.name: one.data_type for one in model.graph.initializer}

    bytes_held = [
        name for name, kind in kinds("mlp int8").items() if kind == onnx.TensorProto.INT8 and "weight" in name
    ]
    assert sum(name.startswith(("first", "second")) and "quantized" in name for name in bytes_held) >= 2
    assert onnx.TensorProto.INT8 not in kinds("mlp").values()


@pytest.mark.parametrize("kind", ["mlp", "ensemble"])
def test_the_stage_makes_an_artifact_that_the_nightly_scorer_opens(kind: str, tmp_path: Path) -> None:
    settings = settings_of(ranker__kind=kind, ranker__precision="int8", ranker__epochs="3")
    made = Stages(tmp_path, small_graph(), settings)
    result = made.run()["ranker"]
    assert result.metrics["kind"] == kind
    assert result.metrics["validation"]["ranker"].keys() == {"recall_at_20", "ndcg_at_20"}
    scorer = Scorer.open(made.paths["features"], made.paths["ranker"], "now")
    pairs = Pairs.read(parts_of(made.paths["features"] / "now")[0])
    assert np.isfinite(scorer.score(pairs)).all()
    assert scorer.model.ranker.kind == kind


def test_model_json_tells_how_inputs_are_scaled(tmp_path: Path) -> None:
    learnt("mlp")[0].save(tmp_path)
    head = json.loads((tmp_path / "model.json").read_text())
    assert head["features"] == list(FEATURES)
    assert head["precision"] == "float32"
    assert {len(values) for values in head["scaling"].values()} == {len(FEATURES)}
    assert len(head["scaling"]["mean"]) == len(FEATURES)
