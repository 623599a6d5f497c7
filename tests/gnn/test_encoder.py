"""Promises of the encoder, from the past view of a graph to embeddings of everyone."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from gnn.batches import compact_bags
from gnn.checkpoint import hash_tensors, open_encoder, save_encoder
from gnn.embed import check_unit_rows, embed, embed_rows
from gnn.inputs import Inputs
from gnn.model import EncoderShape
from gnn.runtime import prepare
from gnn.targets import fanouts_of
from gnn.train import train
from gnn.validate import Validation
from infra.errors import CorruptArtifact, InputError
from infra.graph import REPORT, VALIDATE, Csr
from infra.settings import EncoderSettings
from tests.suites.planted import assemble, bare_graph, planted_graph
from tests.suites.profiles import embed_profile

MODEL = "residual_propagation"
SETTINGS = EncoderSettings(dimensions=32, hidden=32, max_steps=60, batch_size=256, fanout=8)


def trained(graph, settings=SETTINGS, seed=17):
    prepare(threads=1, seed=seed)
    return train(graph, settings, seed, lambda line: None)


def inputs_of(encoder, graph, view="past"):
    weights = encoder.feature_weights.numpy()
    return Inputs.of(encoder.shape.vocabulary, weights, graph, graph.view(view))


@pytest.fixture(scope="module")
def graph():
    return planted_graph()


@pytest.fixture(scope="module")
def result(graph):
    return trained(graph)


@pytest.fixture(scope="module")
def past(result, graph):
    return embed_rows(result.encoder, inputs_of(result.encoder, graph))


def held_out_auc(graph, scores):
    """Share of (held-out friend, stranger) pairs of a user in the right order, by brute force."""
    known = np.eye(graph.users, dtype=bool)
    for r in range(graph.users):
        known[r, graph.past.connections.row(r)] = True
    right = []
    for a, b in graph.held_out:
        known[[a, b], [b, a]] = True
    for a, b in graph.held_out:
        strangers = scores[a, ~known[a]]
        right.append((strangers < scores[a, b]).mean())
    return float(np.mean(right))


def test_withheld_friendships_rank_far_above_chance_and_above_degree(graph, past):
    degree = np.broadcast_to(graph.past.connections.degrees(), (graph.users, graph.users))
    assert held_out_auc(graph, past @ past.T) > 0.8
    assert held_out_auc(graph, past @ past.T) > held_out_auc(graph, degree) + 0.2


def test_the_loss_falls(result):
    curve = result.metrics["curve"]
    assert curve[-1]["loss"] < curve[1]["loss"]


def test_the_best_validation_is_kept_and_patience_ends_the_run(graph, monkeypatch):
    monkeypatch.setattr("gnn.trainer.MIN_VALIDATION_PAIRS", 1)
    one = trained(graph, SETTINGS.model_copy(update={"learning_rate": 0.3, "patience": 2}))
    best = max(one.metrics["curve"], key=lambda point: point["gain"])
    assert one.metrics["early_stopping"]
    assert one.metrics["best_step"] == best["step"]
    assert one.metrics["steps"] < 60
    measured = Validation.of(graph, 17).measure(embed_rows(one.encoder, inputs_of(one.encoder, graph)))
    assert measured["gain"] == best["gain"]


def test_validation_ranks_equal_brute_force(graph, past):
    """Sorts everyone but the user, past friends and other held-out friends, one pair at a time."""
    validation = Validation.of(graph, 17)
    expected = []
    for i, user in enumerate(validation.users):
        for friend in validation.friends.row(i):
            gone = {user, *graph.past.connections.row(user), *validation.friends.row(i)} - {friend}
            rest = np.array(sorted(set(range(graph.users)) - gone))
            order = rest[np.argsort(-(past[rest] @ past[user]), kind="stable")]
            expected.append(1 + int(np.flatnonzero(order == friend)[0]))
    assert validation.ranks(past).tolist() == expected


def test_embeddings_are_unit_rows_in_both_views(graph, result):
    for view in ("past", "now"):
        embedded = embed_rows(result.encoder, inputs_of(result.encoder, graph, view))
        assert embedded.dtype == np.float32
        assert embedded.shape == (graph.users, SETTINGS.dimensions)
        assert np.allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-5)


def test_layer_wise_blocks_equal_one_dense_forward(graph, result, past, monkeypatch):
    """The dense forward multiplies by D^-1/2 A D^-1/2 as a full matrix."""
    encoder, inputs = result.encoder, inputs_of(result.encoder, graph)
    users = graph.users
    adjacency = torch.zeros(users, users)
    adjacency[np.repeat(np.arange(users), inputs.degrees), inputs.connections.indices.astype(np.int64)] = 1
    root = torch.from_numpy(np.maximum(inputs.degrees, 1) ** -0.5).float()
    normal = root[:, None] * adjacency * root[None, :]
    bags, feature_rows = compact_bags(inputs, np.arange(users), torch.device("cpu"))
    with torch.no_grad():
        profiles = encoder.profiles(bags, feature_rows)
        messages = encoder.messages(torch.arange(users), profiles)
        context = torch.from_numpy(inputs.context(np.arange(users), inputs.degrees))
        whole = encoder.head(profiles, [normal @ messages, normal @ normal @ messages], context).numpy()
    assert np.abs(past - whole).max() < 1e-5
    monkeypatch.setattr("gnn.embed.BLOCK", 37)
    assert np.abs(embed_rows(encoder, inputs) - whole).max() < 1e-5


def test_a_new_user_embeds_near_their_community(graph, result, past):
    community = np.arange(graph.users) % 6
    for wanted in range(6):
        codes = np.array([[wanted], [-1]], np.int32)
        clubs = Csr.from_pairs(1, np.array([0]), np.array([wanted]), np.ones(1, np.float32))
        new = embed_profile(result.encoder, codes, clubs, graph.entity_kind)
        nearest = np.argsort(-(past @ new[0]))[:20]
        assert (community[nearest] == wanted).mean() > 0.8


def test_a_user_without_friends_embeds_as_a_new_user_with_that_profile_does(result, graph):
    alone = bare_graph(1)
    codes = np.array([[2], [1]], np.int32)
    new = embed_profile(result.encoder, codes, alone.past.affiliations, graph.entity_kind)
    again = embed_profile(result.encoder, np.repeat(codes, 3, axis=1), Csr.empty(3, np.float32), graph.entity_kind)
    assert np.allclose(again, new, atol=1e-6)


def test_profiles_alone_learn_which_values_go_together():
    """Friends have opposite values here, which nothing says before training."""
    draw, users = np.random.default_rng(8), 200
    value = np.arange(users) % 4
    partner = (value[:, None] + 2) % 4 == value[None, :]
    pairs = np.argwhere(np.triu(partner & (draw.random((users, users)) < 0.2), 1))
    split = np.zeros(users, np.uint8)
    graph = assemble(pairs, pairs[:0], value[None].astype(np.int32), (4,), Csr.empty(users, np.float32), split)
    learnt = trained(graph, SETTINGS.model_copy(update={"learning_rate": 0.01})).encoder
    new = embed_profile(learnt, np.arange(4, dtype=np.int32)[None], Csr.empty(4, np.float32), graph.entity_kind)
    alike = new @ new.T
    for one in range(4):
        assert alike[one, (one + 2) % 4] > max(alike[one, (one + 1) % 4], alike[one, (one + 3) % 4]) + 0.2


def test_report_users_held_out_friends_are_never_looked_at(graph, result):
    """Other held-out pairs of report users leave the same weights."""
    kept = ~(graph.split[graph.held_out] == REPORT).any(axis=1)
    rows = np.flatnonzero(graph.split == REPORT).astype(np.int32)
    other = np.concatenate([graph.held_out[kept], np.stack([rows[:-1], rows[1:]], axis=1)])
    changed = type(graph)(**{**vars(graph), "held_out": other})
    again = trained(changed)
    assert hash_tensors(again.encoder.state_dict()) == hash_tensors(result.encoder.state_dict())
    assert again.metrics == result.metrics


def test_validation_looks_at_validation_users_only(graph, result):
    split = graph.split[graph.held_out]
    wanted = ((split == VALIDATE).sum(1) * (split != REPORT).all(1)).sum()
    assert result.metrics["validation_pairs"] == wanted


@pytest.mark.parametrize("users", [0, 1, 3])
def test_a_graph_without_friendships_gets_initial_weights_and_says_so(users, tmp_path):
    graph = bare_graph(users)
    one = trained(graph)
    assert one.metrics["trained"] is False
    assert one.metrics["why"]
    save_encoder(tmp_path, MODEL, one.encoder, one.encoder.shape)
    embedded = embed(tmp_path, graph, "now")
    assert embedded.shape == (users, SETTINGS.dimensions)
    check_unit_rows(embedded)


def test_friendships_without_any_attribute_are_enough(tmp_path):
    full = planted_graph()
    row = np.repeat(np.arange(full.users), full.past.connections.degrees())
    pairs = np.stack([row, full.past.connections.indices], axis=1)
    nothing = np.empty((0, full.users), np.int32)
    bare = assemble(pairs[row < pairs[:, 1]], full.held_out, nothing, (), Csr.empty(full.users, np.float32), full.split)
    one = trained(bare)
    embedded = embed_rows(one.encoder, inputs_of(one.encoder, bare))
    assert held_out_auc(bare, embedded @ embedded.T) > 0.7


def test_one_friendship_trains():
    pair = np.array([[0, 1]])
    tiny = assemble(pair, pair[:0], np.zeros((1, 2), np.int32), (1,), Csr.empty(2, np.float32), np.zeros(2, np.uint8))
    one = trained(tiny, SETTINGS.model_copy(update={"max_steps": 3}))
    assert one.metrics["early_stopping"] is False
    check_unit_rows(embed_rows(one.encoder, inputs_of(one.encoder, tiny)))


HASH_IN_A_NEW_PROCESS = """
from tests.gnn.test_encoder import *
one = trained(planted_graph())
print(hash_tensors(one.encoder.state_dict()))
print(hashlib.sha256(embed_rows(one.encoder, inputs_of(one.encoder, planted_graph())).tobytes()).hexdigest())
"""


def test_another_process_gets_the_same_weights_and_embeddings(result, past):
    out = subprocess.run(
        [sys.executable, "-c", HASH_IN_A_NEW_PROCESS], capture_output=True, text=True, check=True
    ).stdout.split()
    assert out == [hash_tensors(result.encoder.state_dict()), hashlib.sha256(past.tobytes()).hexdigest()]


def test_another_seed_gets_other_weights(graph, result):
    other = trained(graph, SETTINGS.model_copy(update={"max_steps": 2}), seed=18)
    assert hash_tensors(other.encoder.state_dict()) != hash_tensors(result.encoder.state_dict())


def test_a_saved_encoder_embeds_as_it_did(graph, result, past, tmp_path):
    save_encoder(tmp_path, MODEL, result.encoder, result.encoder.shape)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["encoder.json", "encoder.safetensors"]
    assert np.array_equal(embed(tmp_path, graph, "past"), past)


def test_a_truncated_or_unknown_encoder_is_refused(result, tmp_path):
    save_encoder(tmp_path, MODEL, result.encoder, result.encoder.shape)
    head = (tmp_path / "encoder.json").read_text()
    (tmp_path / "encoder.json").write_text(head.replace(MODEL, "crystal_ball"))
    with pytest.raises(CorruptArtifact, match="crystal_ball"):
        open_encoder(tmp_path, torch.device("cpu"))
    (tmp_path / "encoder.json").write_text(head)
    weights = (tmp_path / "encoder.safetensors").read_bytes()
    (tmp_path / "encoder.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CorruptArtifact, match=r"encoder\.safetensors"):
        open_encoder(tmp_path, torch.device("cpu"))


def test_an_encoder_of_another_graph_is_refused(result, tmp_path):
    save_encoder(tmp_path, MODEL, result.encoder, result.encoder.shape)
    with pytest.raises(InputError, match="240 users"):
        embed(tmp_path, planted_graph(users=60), "past")


def test_a_shape_survives_json(result):
    assert EncoderShape.from_json(result.encoder.shape.to_json()) == result.encoder.shape


def test_small_graphs_hear_more_friends_and_large_ones_what_the_setting_says():
    settings = EncoderSettings(fanout=10, layers=2, batch_size=1024)
    assert fanouts_of(settings, 500) == [40, 40]
    assert fanouts_of(settings, 10**9) == [10, 7]
    assert fanouts_of(settings.model_copy(update={"batch_size": 10_000}), 10**9) == [10, 5]


def test_rows_that_are_not_unit_are_refused():
    rows = np.eye(3, dtype=np.float32)
    check_unit_rows(rows)
    for wrong in (0.0, 2.0, np.nan):
        with pytest.raises(CorruptArtifact, match="row 1"):
            check_unit_rows(np.where(rows * [[0], [1], [0]], np.float32(wrong), rows))
