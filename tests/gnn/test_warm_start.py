"""A warm start brings over what both encoders have in common, by what it stands for."""

import numpy as np
import pyarrow as pa
import pytest
import scipy.linalg
import torch

from gnn.checkpoint import hash_tensors, save_encoder
from gnn.embed import embed_rows
from gnn.inputs import COUNT_BUCKETS, Vocabulary
from gnn.runtime import prepare
from gnn.train import train
from gnn.warm_start import Names, Start, agreement, matching_rows
from infra.errors import UsageError
from infra.graph import Csr
from infra.settings import EncoderSettings
from tests.gnn.test_encoder import inputs_of
from tests.suites.planted import assemble, planted_graph

SETTINGS = EncoderSettings(dimensions=16, hidden=16, max_steps=40, batch_size=256, fanout=8)
SCHOOLS, COLOURS = [f"school-{c}" for c in "abcdef"], ["red", "green", "blue", "grey"]
NAMES = Names({"school": pa.array(SCHOOLS), "colour": pa.array(COLOURS)}, pa.array([f"club\0{n}" for n in range(6)]))


def grown(graph):
    """The same network a month on: a new school sorts first, a user with the lowest id joined, one left."""
    users = graph.users
    kept = np.arange(users - 1)
    row = np.repeat(np.arange(users), graph.past.connections.degrees())
    both = np.stack([row, graph.past.connections.indices], axis=1)
    pairs = both[(both[:, 0] < both[:, 1]) & (both < users - 1).all(1)]
    pairs = np.concatenate([pairs + 1, [[0, 1], [0, 7]]])
    held = graph.held_out[(graph.held_out < users - 1).all(1)] + 1
    school = np.where(graph.attribute_codes[0, kept] < 0, -1, graph.attribute_codes[0, kept] + 1)
    codes = np.concatenate([[[0], [1]], np.stack([school, graph.attribute_codes[1, kept]])], axis=1).astype(np.int32)
    clubs = np.concatenate([[0], graph.past.affiliations.indices[kept]])
    affiliations = Csr.from_pairs(users, np.arange(users), clubs, np.ones(users, np.float32))
    split = np.concatenate([[0], graph.split[kept]]).astype(np.uint8)
    new = assemble(pairs, held, codes, (7, 4), affiliations, split)
    ids = np.concatenate([[-1000], graph.ids[kept]])
    names = Names({"school": pa.array(["school-0", *SCHOOLS]), "colour": pa.array(COLOURS)}, NAMES.entities)
    return type(new)(**{**vars(new), "ids": ids}), names


def trained(graph, settings=SETTINGS, start=None, seed=17):
    prepare(threads=1, seed=seed)
    return train(graph, settings, seed, lambda line: None, start=start)


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder, graph = tmp_path_factory.mktemp("encoder"), planted_graph()
    result = trained(graph)
    save_encoder(folder, "residual_propagation", result.encoder, result.encoder.shape)
    return folder, graph, result


@pytest.fixture(scope="module")
def start(old):
    folder, graph, _ = old
    return Start(folder, graph, NAMES, grown(graph)[1])


def test_rows_are_matched_by_user_and_by_value(old, start):
    _, graph, result = old
    new_graph, _ = grown(graph)
    prepare(threads=1, seed=3)
    fresh = type(result.encoder)(
        type(result.encoder.shape)(16, 16, 2, new_graph.users, Vocabulary.of(new_graph)),
    )
    drawn = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    said = start.into(fresh, new_graph)
    was = result.encoder
    assert torch.equal(fresh.vectors.weight[1:], was.vectors.weight[:-1])
    assert torch.equal(fresh.vectors.weight[0], drawn["vectors.weight"][0])
    assert torch.equal(fresh.features.weight[1:7], was.features.weight[:6])
    assert torch.equal(fresh.features.weight[0], drawn["features.weight"][0])
    assert torch.equal(fresh.features.weight[7:], was.features.weight[6:])
    assert all(torch.equal(a, b) for a, b in zip(fresh.dense, was.dense, strict=True))
    assert said == {"features": len(was.features.weight), "users": 239}


def test_it_starts_where_the_old_one_ended_and_stays_in_its_space(old, start):
    _, graph, result = old
    new_graph, _ = grown(graph)
    few = SETTINGS.model_copy(update={"max_steps": 5})
    warm, cold = trained(new_graph, few, start), trained(new_graph, few)
    assert warm.metrics["curve"][1]["loss"] < cold.metrics["curve"][1]["loss"]
    assert warm.metrics["warm_start"]["compared_users"] == 239
    assert warm.metrics["warm_start"]["cosine"] > 0.9
    before = embed_rows(result.encoder, inputs_of(result.encoder, graph))
    apart = embed_rows(cold.encoder, inputs_of(cold.encoder, new_graph))
    assert warm.metrics["warm_start"]["aligned_cosine"] > agreement(before[:-1], apart[1:])["aligned_cosine"]


def test_a_warm_start_gives_other_weights_the_same_each_time(old, start):
    new_graph, _ = grown(old[1])
    few = SETTINGS.model_copy(update={"max_steps": 3})
    hashes = [hash_tensors(trained(new_graph, few, s).encoder.state_dict()) for s in (start, start, None)]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden": 32}, r"hidden 16, not 32\. .*set encoder\.hidden=16"),
        ({"layers": 1, "dimensions": 8}, "dimensions 16, not 8, layers 2, not 1"),
        ({"model": "graph_sage"}, "model residual_propagation, not graph_sage"),
    ],
)
def test_an_encoder_of_another_shape_is_refused_with_what_differs(old, start, change, said):
    with pytest.raises(UsageError, match=said):
        trained(grown(old[1])[0], SETTINGS.model_copy(update=change), start)


def test_an_attribute_that_is_new_or_gone_and_hashed_values_match_nothing():
    old = Vocabulary(("gone", "city"), (2, 3), 2)
    new = Vocabulary(("city", "new"), (2, 4), 3)
    old_names = Names({"gone": pa.array(["x", "y"]), "city": pa.array(["a", "b", "c", "hashed"])}, pa.array(["p", "q"]))
    new_names = Names({"city": pa.array(["hashed", "c", "a"]), "new": pa.array(["x"])}, pa.array(["q", "r", "p"]))
    counts = [old.first_count + i for i in range(2 * COUNT_BUCKETS)]
    expected = [-1, 4, -1, -1, -1, -1, 6, -1, 5, *counts]
    assert matching_rows(new, new_names, old, old_names).tolist() == expected


def test_agreement_is_that_of_scipys_procrustes():
    draw = np.random.default_rng(4)
    before, noise = (draw.normal(size=(300, 8)).astype(np.float32) for _ in range(2))
    turn = np.linalg.qr(draw.normal(size=(8, 8)))[0]
    after = (before @ turn + 0.3 * noise).astype(np.float32)
    before, after = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (before, after))
    rotation, _ = scipy.linalg.orthogonal_procrustes(before[::2], after[::2])
    expected = float(((before[1::2] @ rotation) * after[1::2]).sum(1).mean())
    found = agreement(before, after)
    assert found["aligned_cosine"] == pytest.approx(expected, abs=1e-6)
    assert found["aligned_cosine"] > 0.9 > found["cosine"]
    assert agreement(before[:1], after[:1]) == {"cosine": None, "aligned_cosine": None}
