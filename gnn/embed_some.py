"""Embeddings of a few users of a graph by an encoder of an earlier one: of who joined since, by their circle alone.

A user embeds by their profile and by what those around them send. Whoever the encoder was not trained with sends their
profile and no vector of their own.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from gnn.checkpoint import open_encoder
from gnn.embed import embed_rows
from gnn.inputs import Inputs, feature_bags
from gnn.model import Encoder
from infra.graph import Csr, Float32, Graph, Int64, View


def embed_some(
    encoder_folder: Path, graph: Graph, view: View, rows: Int64, trained_row: Int64, device: str = "cpu"
) -> Float32:
    """Unit embeddings of some rows of a view, float32 [len(rows), D], in time linear in what is within reach of them.

    trained_row int64 [N]: of each user in the graph that the encoder was trained on, -1 of whoever is not there.
    Attributes and entities must be coded as they were there.
    """
    encoder = open_encoder(encoder_folder, torch.device(device))
    near, hearing = _reach(view.connections, rows, encoder.shape.layers)
    known = add_silent_row(encoder)
    vectors = np.where(trained_row[near] < 0, known, trained_row[near] % known)
    embedded = embed_rows(encoder, _inputs(encoder, graph, view, near, hearing), vectors)
    return embedded[np.searchsorted(near, rows)]


def _reach(friends: Csr, rows: Int64, hops: int) -> tuple[Int64, Int64]:
    """Rows within so many hops, int64 ascending; and those of them whose friends all are, which must hear them."""
    hearing = near = np.unique(rows)
    for _ in range(hops):
        hearing = near
        near = np.union1d(near, friends.indices[friends.entries_of(near)].astype(np.int64))
    return near, hearing


def add_silent_row(encoder: Encoder) -> int:
    """Adds a zero row to the users' own vectors, for whoever has none; returns its number."""
    table = encoder.vectors.weight
    silent = table.new_zeros(1, table.shape[1])
    encoder.vectors = nn.Embedding.from_pretrained(torch.cat([table.detach(), silent]), sparse=True)
    return len(table)


def _inputs(encoder: Encoder, graph: Graph, view: View, near: Int64, hearing: Int64) -> Inputs:
    """What the encoder reads of the rows `near`, of whom only those of `hearing` hear their friends."""
    degrees = view.connections.degrees()[near]
    heard = np.where(np.isin(near, hearing, assume_unique=True), degrees, 0)
    friends = view.connections.indices[view.connections.entries_of(hearing)]
    connections = Csr(_ends(heard), np.searchsorted(near, friends).astype(np.int32))
    codes = np.ascontiguousarray(np.asarray(graph.attribute_codes)[:, near])
    affiliations = _rows_of(view.affiliations, near)
    weights = encoder.feature_weights.cpu().numpy()
    return Inputs(
        connections=connections,
        bags=feature_bags(encoder.shape.vocabulary, weights, codes, affiliations, graph.entity_kind, degrees),
        degrees=degrees,
        affiliation_counts=affiliations.degrees(),
        attributes_known=((codes >= 0).sum(0) / max(1, len(codes))).astype(np.float32),
    )


def _rows_of(csr: Csr, rows: Int64) -> Csr:
    entries = csr.entries_of(rows)
    values = None if csr.values is None else np.asarray(csr.values)[entries]
    return Csr(_ends(csr.degrees()[rows]), np.asarray(csr.indices)[entries], values)


def _ends(lengths: Int64) -> Int64:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
