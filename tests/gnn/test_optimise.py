"""Promises of the row-wise optimiser."""

import numpy as np
import torch

from gnn import model
from gnn.inputs import Vocabulary
from gnn.model import EncoderShape
from gnn.models import MODELS
from gnn.optimise import RowAdam


def stepped(gradients, rows=5, width=3, lr=0.1):
    table = torch.nn.Parameter(torch.zeros(rows, width))
    optimiser = RowAdam([table], lr)
    for touched, slope in gradients:
        index = torch.tensor([touched])
        table.grad = torch.sparse_coo_tensor(index, torch.tensor(slope), (rows, width))
        optimiser.step()
    return table.detach().numpy()


def test_only_the_rows_of_the_gradient_move():
    table = stepped([([1, 3], [[1.0, 0.0, 0.0], [0.0, 2.0, 2.0]])])
    assert (np.abs(table).sum(1) > 0).tolist() == [False, True, False, True, False]


def test_steps_follow_the_formula():
    """Row by row: m <- 0.99 m + 0.01 mean(g^2), w <- w - lr g / sqrt(m / (1 - 0.99^t)), t counting that row's steps."""
    draw = np.random.default_rng(1)
    gradients = [([0, 2], draw.normal(size=(2, 3))), ([2, 4], draw.normal(size=(2, 3)))]
    expected, moment, steps = np.zeros((5, 3)), np.zeros(5), np.zeros(5)
    for rows, slopes in gradients:
        for row, slope in zip(rows, slopes, strict=True):
            steps[row] += 1
            moment[row] = 0.99 * moment[row] + 0.01 * (slope**2).mean()
            expected[row] -= 0.1 * slope / np.sqrt(moment[row] / (1 - 0.99 ** steps[row]))
    assert np.allclose(stepped([(r, s.astype(np.float32).tolist()) for r, s in gradients]), expected, atol=1e-5)


def test_a_row_that_a_gradient_names_twice_takes_the_sum():
    twice = [([3, 1, 3], [[1.0, 0.0, 2.0], [0.5, 0.5, 0.5], [1.0, 4.0, 0.0]])] * 2
    once = [([1, 3], [[0.5, 0.5, 0.5], [2.0, 4.0, 2.0]])] * 2
    assert np.allclose(stepped(twice), stepped(once), atol=1e-7)


def test_users_who_share_a_vector_move_it_by_their_sum(monkeypatch):
    """Seven users on three rows: the step is that of a table whose gradient is dense."""
    monkeypatch.setattr(model, "VECTOR_ROWS", 3)
    torch.manual_seed(4)
    encoder = MODELS["residual_propagation"](EncoderShape(8, 8, 1, 7, Vocabulary((), (), 0)))
    pull, rows = torch.randn(7, 8), torch.arange(7)
    was = encoder.vectors.weight.detach().clone()
    (encoder.own_vectors(rows) * pull).sum().backward()
    RowAdam([encoder.vectors.weight], 0.1).step()
    slope = torch.stack([pull[rows % 3 == row].sum(0) for row in range(3)])
    expected = was - 0.1 * slope / slope.pow(2).mean(1, keepdim=True).sqrt()
    assert torch.allclose(encoder.vectors.weight, expected, atol=1e-5)
