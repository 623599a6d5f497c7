"""Promises of the ranker's network: what it computes, what it learns from, and that its export is the same."""

import math

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from gnn.mlp import BOUND, ListwiseMlp, Scaling
from gnn.mlp_export import to_int8, to_onnx
from gnn.mlp_train import ScoredLists, _Padded, train_mlp
from infra.settings import RankerSettings

FEATURES = 6
torch.set_num_threads(1)
WIDE = np.arange(FEATURES) >= 4


def rows(n, seed=0):
    draw = np.random.default_rng(seed)
    matrix = draw.normal(size=(n, FEATURES)).astype(np.float32)
    matrix[:, WIDE] = draw.lognormal(3, 1.5, size=(n, WIDE.sum())).astype(np.float32)
    return matrix


def random_model(seed=1):
    torch.manual_seed(seed)
    model = ListwiseMlp(Scaling.of(rows(500), WIDE), 16)
    torch.nn.init.normal_(model.last.weight)
    return model.eval()


def lists_of(count, seed, size=12, sign=3):
    """The friend is one whose first two features have the same sign (3) or not (-3): no weighted sum tells."""
    matrix = rows(count * size, seed)
    truth = sign * np.sign(matrix[:, 0] * matrix[:, 1]) + np.random.default_rng(seed).gumbel(size=len(matrix))
    label = (np.arange(size) == truth.reshape(count, size).argmax(1)[:, None]).reshape(-1)
    offsets = np.arange(count + 1, dtype=np.int64) * size
    return ScoredLists(matrix, label, offsets, np.zeros(len(matrix), np.float32))


def test_scaled_features_have_mean_zero_and_deviation_one_whatever_they_span():
    matrix = rows(5000)
    scaled = Scaling.of(matrix, WIDE).apply(matrix)
    np.testing.assert_allclose(scaled.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(scaled.std(0), 1, atol=0.02)
    far = np.full((1, FEATURES), 1e9, np.float32)
    assert np.abs(Scaling.of(matrix, WIDE).apply(np.concatenate([far, -far]))).max() <= BOUND


def test_a_constant_column_is_left_where_it_is():
    matrix = rows(50)
    matrix[:, 2] = 7
    assert (Scaling.of(matrix, WIDE).apply(matrix)[:, 2] == 0).all()


def test_the_loss_is_that_of_the_softmax_worked_by_hand():
    """Two lists of unlike length; in the first two friends, who count sqrt(2) together."""
    matrix, model = rows(7), random_model()
    label = np.array([1, 0, 1, 0, 0, 0, 1], bool)
    prior = np.random.default_rng(3).normal(size=7).astype(np.float32)
    lists = ScoredLists(matrix, label, np.array([0, 4, 7]), prior)
    with torch.no_grad():
        found = float(_Padded.of(lists, model).loss(model, torch.tensor([0, 1])))
        score = prior.astype(np.float64) + model(torch.from_numpy(matrix)).numpy()
    expected = 0.0
    for first, last in ((0, 4), (4, 7)):
        friends = np.flatnonzero(label[first:last])
        total = math.log(np.exp(score[first:last]).sum())
        expected -= sum(score[first + at] - total for at in friends) / math.sqrt(len(friends))
    assert found == pytest.approx(expected, rel=1e-5)


def test_training_finds_what_no_weighted_sum_can():
    trained = train_mlp(lists_of(300, 1), lists_of(100, 2), WIDE, RankerSettings(epochs=15), 5)
    fresh = lists_of(300, 3)
    with torch.no_grad():
        found = trained.model(torch.from_numpy(fresh.matrix)).numpy()
    same_sign = fresh.matrix[:, 0] * fresh.matrix[:, 1] > 0
    assert found[same_sign].mean() > found[~same_sign].mean() + 1
    assert trained.metrics["best_epoch"] > 0


def test_where_lists_kept_apart_do_not_gain_nothing_is_added():
    train, check = lists_of(300, 1), lists_of(100, 2, sign=-3)
    trained = train_mlp(train, check, WIDE, RankerSettings(epochs=10), 5)
    assert trained.metrics["best_epoch"] == 0
    assert not trained.model(torch.from_numpy(train.matrix)).any()


def test_the_exported_network_computes_what_the_trained_one_does():
    """Beside onnxruntime, the reference implementation of ONNX itself."""
    model, matrix = random_model(), rows(1000, 4)
    network = to_onnx(model)
    with torch.no_grad():
        expected = model(torch.from_numpy(matrix)).numpy()
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"features": matrix})[0], expected, atol=1e-5)
    np.testing.assert_allclose(ReferenceEvaluator(network).run(None, {"features": matrix})[0], expected, atol=1e-5)


def test_int8_stays_near_float32_and_is_made_the_same_again():
    model, matrix = random_model(), rows(2000, 4)
    network = to_onnx(model)
    small = to_int8(network, matrix[:1000])
    assert small == to_int8(network, matrix[:1000])
    onnx.checker.check_model(onnx.load_from_string(small))
    found, expected = (
        onnxruntime.InferenceSession(one, providers=["CPUExecutionProvider"]).run(None, {"features": matrix})[0]
        for one in (small, network)
    )
    assert np.corrcoef(found, expected)[0, 1] > 0.995
