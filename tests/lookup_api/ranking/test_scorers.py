"""Models of every kind score named columns, each row alone, as the library that made them does."""

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import xgboost as xgb
from onnx import TensorProto, helper, numpy_helper

from infra.errors import CorruptArtifact, GateRefused, PymkError, UsageError
from infra.model_golden import Golden
from infra.model_reference import FILE as REFERENCE
from infra.model_spec import WEIGHTS, InputSpec, ModelSpec
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.model_check import check_model
from lookup_api.ranking.newcomers import Newcomers
from lookup_api.ranking.ranker import Ranker
from lookup_api.ranking.ranker_prior import default_prior
from lookup_api.ranking.ranker_trees import TreesRanker
from lookup_api.ranking.scorers import KINDS, Scorer, open_scorer
from lookup_api.ranking.scoring import RankingModel
from tests.suites.model_folders import ROWS, columns_of, small_spec, write_folder

Weights = Callable[[Path], None]


def matrix_of(spec: ModelSpec, rows: int = ROWS, seed: int = 3) -> np.ndarray:
    return np.column_stack(list(columns_of(spec, rows, seed).values())).astype(np.float32)


def trees(width: int, rounds: int = 5) -> xgb.Booster:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, width)).astype(np.float32)
    return xgb.train({"max_depth": 3, "nthread": 1}, xgb.DMatrix(x, x[:, 0] * x[:, -1]), rounds)


def xgboost_weights(folder: Path) -> None:
    trees(3).save_model(folder / "model.json")


def onnx_weights(inputs: list[tuple[str, int, list[Any]]], nodes: list[onnx.NodeProto], **arrays: Any) -> Weights:
    """A graph of named inputs with an output `score`."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return lambda folder: onnx.save(made, folder / "model.onnx")


def network(width: int = 3) -> Weights:
    """Two layers over one matrix."""
    rng = np.random.default_rng(2)
    first, second = (rng.normal(size=shape).astype(np.float32) for shape in ((width, 8), (8, 1)))
    nodes = [
        helper.make_node("MatMul", ["all", "first"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["above"]),
        helper.make_node("MatMul", ["above", "second"], ["score"]),
    ]
    return onnx_weights([("all", TensorProto.FLOAT, ["n", width])], nodes, first=first, second=second)


def named() -> Weights:
    """walk + the sum of the embedding + how many attributes."""
    nodes = [
        helper.make_node("Cast", ["embedding"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["wide", "columns"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["degree"], ["many"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["walk", "sum"], ["both"]),
        helper.make_node("Add", ["both", "many"], ["score"]),
    ]
    inputs = [
        ("walk", TensorProto.FLOAT, ["n"]),
        ("embedding", TensorProto.FLOAT16, ["n", 4]),
        ("degree", TensorProto.INT64, ["n"]),
    ]
    return onnx_weights(inputs, nodes, columns=np.array([1], np.int64))


def above_mean() -> Weights:
    """A model of lists: each row's walk, less the list's mean."""
    nodes = [
        helper.make_node("ReduceMean", ["walk"], ["mean"]),
        helper.make_node("Sub", ["walk", "mean"], ["score"]),
    ]
    return onnx_weights([("walk", TensorProto.FLOAT, ["n"])], nodes)


NAMED = (
    InputSpec(name="walk", default=2.0),
    InputSpec(name="embedding", type="float16", width=4),
    InputSpec(name="degree", type="int64", default=7),
)


def the_ranker(folder: Path) -> None:
    booster = trees(len(FEATURES))
    TreesRanker(prior=default_prior(), booster=booster).save(folder)
    Newcomers.by_default().save(folder)


RANKER_INPUTS = tuple(InputSpec(name=name) for name in FEATURES)
MODELS: dict[str, tuple[dict[str, Any], Weights]] = {
    "ranker": ({"kind": "ranker", "inputs": RANKER_INPUTS}, the_ranker),
    "xgboost": ({"kind": "xgboost"}, xgboost_weights),
    "xgboost, binary": ({"kind": "xgboost"}, lambda folder: trees(3).save_model(folder / "model.ubj")),
    "onnx, a matrix": ({"kind": "onnx"}, network()),
    "onnx, named": ({"kind": "onnx", "inputs": NAMED}, named()),
    "onnx, lists": ({"kind": "onnx", "inputs": NAMED[:1], "unit": "list"}, above_mean()),
}
every_model = pytest.mark.parametrize("model", MODELS)


def opened(model: str, folder: Path) -> Scorer:
    changes, weights = MODELS[model]
    return open_scorer(write_folder(folder, small_spec(**changes), weights))


def test_every_kind_is_tried() -> None:
    assert {changes["kind"] for changes, _ in MODELS.values()} == set(KINDS)


@every_model
def test_columns_by_name_and_one_matrix_score_the_same(model: str, tmp_path: Path) -> None:
    scorer = opened(model, tmp_path)
    columns = columns_of(scorer.spec)
    if "degree" in columns:
        columns["degree"] = np.arange(ROWS)
    matrix = np.column_stack([columns[name] for name in scorer.spec.columns]).astype(np.float32)
    scores = scorer.score(dict(reversed(columns.items())))
    assert (scores.dtype, scores.shape) == (np.float32, (ROWS,))
    np.testing.assert_array_equal(scores, scorer.score(matrix))
    assert len(np.unique(scores)) > 5
    assert scorer.score(matrix[:0]).shape == scorer.score({}).shape == (0,)


@every_model
def test_a_score_is_the_same_to_the_bit_whoever_is_scored_with_it(model: str, tmp_path: Path) -> None:
    scorer = opened(model, tmp_path)
    if scorer.spec.unit == "list":
        pytest.skip("its rows are one list")
    matrix = matrix_of(scorer.spec, 5000)
    scores = scorer.score(matrix)
    for size in (1, 3, 17, 2048, 2049):
        parts = [scorer.score(matrix[start : start + size]) for start in range(0, min(5000, 20 * size), size)]
        together = np.concatenate(parts)
        np.testing.assert_array_equal(together, scores[: len(together)], err_msg=f"{size} at a time")


def test_scores_are_those_of_the_library(tmp_path: Path) -> None:
    matrix = matrix_of(small_spec())
    booster = trees(3)
    np.testing.assert_array_equal(
        opened("xgboost", tmp_path / "x").score(matrix), booster.predict(xgb.DMatrix(matrix)).astype(np.float32)
    )


def test_trees_that_are_opened_by_the_booster_of_others_score_as_if_they_were_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare: deque[xgb.Booster] = deque()
    monkeypatch.setattr("lookup_api.ranking.scorer_trees.SPARE", spare)
    boosters = [trees(3), trees(5, 40), trees(3, 1)]
    boosters[1].set_attr(note="of others")
    seen = set()
    for at, made in enumerate([*boosters, *boosters]):
        spec = small_spec(kind="xgboost", inputs=tuple(InputSpec(name=f"c{c}") for c in range(made.num_features())))
        folder = write_folder(tmp_path / str(at), spec, lambda to, made=made: made.save_model(to / "model.ubj"))
        scorer, matrix = open_scorer(folder), matrix_of(spec)
        np.testing.assert_array_equal(scorer.score(matrix), made.predict(xgb.DMatrix(matrix)).astype(np.float32))
        seen.add(scorer.booster.handle.value)
        assert not spare, "who scores by it has it alone"
        del scorer
        assert len(spare) == 1
    assert len(seen) == 1


def test_the_ranker_of_the_night_scores_as_the_night_does(tmp_path: Path) -> None:
    scorer = opened("ranker", tmp_path)
    model = RankingModel.open(tmp_path / WEIGHTS)
    matrix = matrix_of(scorer.spec)
    matrix[::3, FEATURES.index("viewer_degree")] = 0
    np.testing.assert_array_equal(scorer.score(matrix), model.score(matrix))
    assert (scorer.score(matrix) != Ranker.open(tmp_path / WEIGHTS).score(matrix)).any(), "newcomers have their own"


def test_named_inputs_keep_their_types_and_defaults_stand_for_those_left_out(tmp_path: Path) -> None:
    scorer = opened("onnx, named", tmp_path)
    columns = columns_of(scorer.spec, 5) | {"degree": np.array([1, 2, 3, 4, 2**24 + 2])}
    wanted = columns["walk"] + columns["embedding"].astype(np.float32).sum(axis=1) + columns["degree"]
    np.testing.assert_allclose(scorer.score(columns), wanted.astype(np.float32), rtol=1e-6)
    np.testing.assert_array_equal(scorer.score({"walk": np.array([1.0, 2.0])}), [8, 9])


@pytest.mark.parametrize(
    "inputs",
    [
        np.zeros((2, 4), np.float32),
        np.zeros(3, np.float32),
        {"walk": np.zeros((2, 2))},
        {"walk": np.zeros(3), "viewer_degree": np.zeros(2)},
    ],
)
def test_inputs_of_another_shape_are_refused(inputs: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="small: "):
        opened("xgboost", tmp_path).score(inputs)


@every_model
@pytest.mark.parametrize("damage", ["half", "gone", "empty"])
def test_damaged_weights_are_refused(model: str, damage: str, tmp_path: Path) -> None:
    opened(model, tmp_path)
    weights = next(p for p in sorted((tmp_path / WEIGHTS).iterdir()) if p.name != "newcomers.json")
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2] if damage == "half" else b"")
    if damage == "gone":
        weights.unlink()
    with pytest.raises(PymkError, match="weights"):
        open_scorer(tmp_path)


@pytest.mark.parametrize("kind", ["xgboost", "onnx, a matrix"])
def test_weights_of_other_columns_are_refused(kind: str, tmp_path: Path) -> None:
    changes, weights = MODELS[kind]
    spec = small_spec(**changes, inputs=(InputSpec(name="walk"),))
    with pytest.raises(CorruptArtifact, match=r"takes 3 columns, model\.toml names 1"):
        open_scorer(write_folder(tmp_path, spec, weights))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": NAMED[:2]}, "its inputs are not those of model.toml"),
        ({"inputs": (*NAMED[:2], InputSpec(name="degree", type="int32"))}, "its inputs are not those of model.toml"),
        ({"output": "other"}, "gives score, model.toml says other"),
    ],
)
def test_a_graph_of_other_inputs_or_outputs_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    spec = small_spec(**{"kind": "onnx", "inputs": NAMED} | changes)
    with pytest.raises(CorruptArtifact, match=said):
        open_scorer(write_folder(tmp_path, spec, named()))


def test_a_graph_that_gives_anything_but_a_number_a_row_is_an_error(tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceMean", ["walk"], ["score"], keepdims=0)]
    weights = onnx_weights([("walk", TensorProto.FLOAT, ["n"])], nodes)
    spec = small_spec(kind="onnx", inputs=NAMED[:1], unit="list")
    with pytest.raises(PymkError, match="of 40 rows, not a number each"):
        open_scorer(write_folder(tmp_path, spec, weights)).score(columns_of(spec))


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Kinds: ranker, xgboost"):
        open_scorer(write_folder(tmp_path, small_spec(kind="oracle"), xgboost_weights))


def checked(folder: Path, spec: ModelSpec, weights: Weights, change: float = 0.0, known: Any = FEATURES) -> Any:
    """What the check says of a model whose golden batch holds its own scores, one of them changed."""
    made = write_folder(folder, spec, weights)
    scores = open_scorer(made).score(columns_of(spec))
    scores[7] += change * np.abs(scores).max()
    return check_model(write_folder(folder / "again", spec, weights, Golden(columns_of(spec), scores)), spec, known)


@every_model
def test_a_model_that_scores_its_golden_batch_passes(model: str, tmp_path: Path) -> None:
    changes, weights = MODELS[model]
    spec = small_spec(**changes)
    known = [*FEATURES, "embedding", "degree"]
    assert checked(tmp_path, spec, weights, known=known) == {"rows": ROWS, "largest_difference": 0.0}


def test_differences_within_the_tolerance_pass_and_others_are_named_by_row(tmp_path: Path) -> None:
    spec = small_spec(tolerance=1e-3)
    told = checked(tmp_path / "a", spec, xgboost_weights, 5e-4)
    assert told["largest_difference"] == pytest.approx(5e-4, rel=0.1)
    with pytest.raises(GateRefused, match="small: row 7 of the golden batch scores"):
        checked(tmp_path / "b", spec, xgboost_weights, 5e-3)


def test_a_score_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Log", ["walk"], ["score"])]
    weights = onnx_weights([("walk", TensorProto.FLOAT, ["n"])], nodes)
    spec = small_spec(kind="onnx", inputs=NAMED[:1])
    with pytest.raises(GateRefused, match=r"row \d+ of the golden batch scores nan"):
        check_model(write_folder(tmp_path, spec, weights), spec)


def test_a_row_that_depends_on_those_beside_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GateRefused, match="depends on the rows beside it"):
        checked(tmp_path, small_spec(kind="onnx", inputs=NAMED[:1]), above_mean())


def test_inputs_that_no_table_has_are_refused_and_near_names_shown(tmp_path: Path) -> None:
    inputs = (InputSpec(name="walk"), InputSpec(name="viewer_degre"), InputSpec(name="joint_walk"))
    with pytest.raises(
        UsageError, match=r"inputs\.1\.name: 'viewer_degre': is in no feature table\. Nearest: viewer_degree"
    ):
        checked(tmp_path, small_spec(inputs=inputs), xgboost_weights)


def test_only_models_of_lists_see_what_is_known_after_ranking(tmp_path: Path) -> None:
    inputs = (InputSpec(name="score"),)
    nodes = [helper.make_node("Neg", ["score"], ["order"])]
    weights = onnx_weights([("score", TensorProto.FLOAT, ["n"])], nodes)

    def of_order(folder: Path) -> None:
        weights(folder)
        model = onnx.load(folder / "model.onnx")
        model.graph.output[0].name = "order"
        onnx.save(model, folder / "model.onnx")

    spec = small_spec(kind="onnx", inputs=inputs, output="order", unit="list")
    assert checked(tmp_path / "a", spec, of_order)["rows"] == ROWS
    with pytest.raises(UsageError, match="is in no feature table"):
        checked(tmp_path / "b", small_spec(kind="onnx", inputs=inputs, output="order"), of_order)


def test_a_reference_that_is_none_is_refused(tmp_path: Path) -> None:
    spec = small_spec()
    folder = write_folder(tmp_path, spec, xgboost_weights)
    (folder / REFERENCE).write_text('{"inputs": {}}')
    with pytest.raises(UsageError, match=r"reference\.json: no reference of a model"):
        check_model(folder, spec)


def test_more_weights_than_memory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"resources\.memory_bytes: 10 is less than"):
        checked(tmp_path, small_spec(resources={"memory_bytes": 10}), xgboost_weights)


@pytest.mark.parametrize("kind", ["oracle", ""])
def test_the_check_refuses_an_unknown_kind(kind: str, tmp_path: Path) -> None:
    spec = small_spec().model_copy(update={"kind": kind})
    with pytest.raises(UsageError, match="no such kind of model"):
        check_model(write_folder(tmp_path, spec, xgboost_weights), spec)
