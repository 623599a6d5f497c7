"""A blend that is authored in torch scores as a model of the registry what it scores in torch, to the bit."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gnn.blend.list_export import export_list, scores_of
from infra.errors import PymkError, UsageError
from infra.model_spec import InputSpec, read_spec
from lookup_api.ranking.model_check import check_model
from lookup_api.ranking.scorers import open_scorer
from tests.gnn.blend import brute
from tests.suites.list_models import PICKS, list_columns, list_spec, small_blend, write_list_model

DIMENSIONS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_list_model(tmp_path_factory.mktemp("blend") / "model", DIMENSIONS)


def test_a_push_would_take_it(folder: Path) -> None:
    assert check_model(folder, read_spec(folder)) == {"rows": 40, "largest_difference": 0.0}


@pytest.mark.parametrize("people", [1, 2, PICKS - 1, PICKS, PICKS + 1, 40, 300])
def test_lists_of_any_length_score_as_in_torch_to_the_bit(folder: Path, people: int) -> None:
    scorer, model = open_scorer(folder), small_blend()
    for seed in range(20):
        columns = list_columns(DIMENSIONS, people, seed)
        np.testing.assert_array_equal(scorer.score(columns), scores_of(model, columns))


def test_the_first_are_the_picks_in_order_and_the_others_follow_by_utility() -> None:
    columns = list_columns(DIMENSIONS, 30)
    scores = scores_of(small_blend(), columns)
    weighted = _unit(columns["score"]) - 0.5 * _unit(columns["price"])
    wanted = brute.spaced_spectrum(
        weighted, columns["embedding"].astype(np.float64), columns["attributes"], np.ones(30, bool), PICKS, 0.5, 0.1, 4
    )
    order = np.argsort(-scores, kind="stable")
    assert order[:PICKS].tolist() == wanted
    assert scores[order[:PICKS]].tolist() == list(range(PICKS, 0, -1))
    rest = [one for one in np.argsort(-weighted, kind="stable").tolist() if one not in wanted]
    assert order[PICKS:].tolist() == rest
    assert (scores[rest] <= 0).all()


def _unit(values: np.ndarray) -> np.ndarray:
    wide = values.astype(np.float64)
    return (wide - wide.min()) / (wide.max() - wide.min())


class Judging(nn.Module):
    """Does one thing for some lists and another for others, which a traced graph cannot."""

    def forward(self, columns: Mapping[str, Tensor]) -> Tensor:
        score = columns["score"]
        return -score if len(score) < 5 else score


def test_a_module_that_cannot_be_traced_is_not_exported(tmp_path: Path) -> None:
    spec, columns = list_spec(DIMENSIONS, inputs=(InputSpec(name="score"),)), list_columns(DIMENSIONS, 40)
    with pytest.raises(PymkError, match="the exported graph scores"):
        export_list(Judging(), spec, columns, "# A\n", tmp_path / "model")
    with pytest.raises(UsageError, match="attributes, embedding, price: the module does not use it"):
        export_list(Judging(), list_spec(DIMENSIONS), columns, "# A\n", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_model_of_rows_is_not_exported(tmp_path: Path) -> None:
    spec = list_spec(DIMENSIONS, unit="row")
    with pytest.raises(UsageError, match='unit = "list"'):
        export_list(small_blend(), spec, list_columns(DIMENSIONS, 40), "# A\n", tmp_path / "model")


def test_another_edit_is_another_model() -> None:
    columns = list_columns(DIMENSIONS, 40)
    before, after = scores_of(small_blend(), columns), scores_of(small_blend(spacing=0.9), columns)
    assert not np.array_equal(before, after)
    assert torch.is_tensor(small_blend().utility.weights)
