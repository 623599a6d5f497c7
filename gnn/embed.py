"""Embeddings of everyone, layer by layer: each layer once for all rows, in blocks, never per-user sampling."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gnn.batches import compact_bags, whole_friends
from gnn.checkpoint import open_encoder
from gnn.inputs import Inputs
from gnn.model import Encoder
from infra.errors import CorruptArtifact, InputError
from infra.graph import Float32, Graph, Int64, ViewName

BLOCK = 8192
"""Rows at a time."""
BLOCK_FRIENDS = 1 << 20
"""Friends that are heard at a time: a model may hold a message of each."""


def embed(encoder_folder: Path, graph: Graph, view: ViewName, device: str = "cpu") -> Float32:
    """Unit embeddings of every row of one view, float32 [N, D].

    Raises InputError where the encoder was trained for another graph, CorruptArtifact where a row comes out wrong.
    """
    encoder = open_encoder(encoder_folder, torch.device(device))
    if encoder.shape.users != graph.users:
        raise InputError(
            f"{encoder_folder}: an encoder of {encoder.shape.users} users, the graph has {graph.users}",
            "Train the encoder on this graph.",
        )
    vocabulary, weights = encoder.shape.vocabulary, encoder.feature_weights.cpu().numpy()
    return embed_rows(encoder, Inputs.of(vocabulary, weights, graph, graph.view(view)))


@torch.no_grad()
def embed_rows(encoder: Encoder, inputs: Inputs, vector_rows: Int64 | None = None) -> Float32:
    """Unit embeddings of all rows of `inputs`, float32 [N, D]; holds layers + 2 arrays of N x hidden.

    vector_rows int64 [N]: whose own vectors the encoder knows them by, where they are not rows 0 .. N - 1 of its graph.
    """
    device = encoder.feature_weights.device
    profiles, sent = _first_level(encoder, inputs, device, vector_rows)
    levels, known = [], profiles
    for hop in range(encoder.shape.layers):
        known = sent = _next_level(encoder, hop, inputs, known, sent)
        levels.append(known)
    embedded = np.empty((inputs.users, encoder.shape.dimensions), np.float32)
    for start, end in _blocks(inputs.users):
        rows = np.arange(start, end)
        context = torch.from_numpy(inputs.context(rows, inputs.degrees[rows])).to(device)
        heard = [one[start:end] for one in levels]
        embedded[start:end] = encoder.head(profiles[start:end], heard, context).cpu().numpy()
    check_unit_rows(embedded)
    return embedded


def _first_level(
    encoder: Encoder, inputs: Inputs, device: torch.device, vector_rows: Int64 | None
) -> tuple[Tensor, Tensor]:
    """Profiles and messages of all rows, [N, hidden] each."""
    profiles = torch.empty(inputs.users, encoder.shape.hidden, device=device)
    messages = torch.empty_like(profiles)
    for start, end in _blocks(inputs.users):
        rows = np.arange(start, end)
        bags, feature_rows = compact_bags(inputs, rows, device)
        profiles[start:end] = encoder.profiles(bags, feature_rows)
        if inputs.connections.entries:
            own = rows if vector_rows is None else vector_rows[start:end]
            messages[start:end] = encoder.messages(torch.from_numpy(own).to(device), profiles[start:end])
    return profiles, messages if inputs.connections.entries else profiles


def _next_level(encoder: Encoder, hop: int, inputs: Inputs, known: Tensor, sent: Tensor) -> Tensor:
    level = torch.empty_like(known)
    for start, end in _blocks_of_friends(inputs.connections.indptr):
        friends = whole_friends(inputs, start, end, sent.device)
        level[start:end] = encoder.hear(hop, known[start:end], friends, sent)
    return level


def check_unit_rows(embedded: Float32) -> None:
    """Raises CorruptArtifact unless every row is finite and of norm 1 within 1e-4."""
    for start, end in _blocks(len(embedded)):
        norms = np.linalg.norm(embedded[start:end], axis=1)
        wrong = np.flatnonzero(~(np.abs(norms - 1) <= 1e-4))
        if len(wrong):
            row = start + int(wrong[0])
            raise CorruptArtifact(
                f"embeddings: row {row} has norm {norms[wrong[0]]}, not 1", "Train the encoder again."
            )


def _blocks(rows: int) -> list[tuple[int, int]]:
    return [(start, min(start + BLOCK, rows)) for start in range(0, rows, BLOCK)]


def _blocks_of_friends(indptr: Int64) -> list[tuple[int, int]]:
    """Blocks of at most BLOCK rows with at most BLOCK_FRIENDS friends, or of one row."""
    users, blocks, start = len(indptr) - 1, [], 0
    while start < users:
        fitting = int(np.searchsorted(indptr, indptr[start] + BLOCK_FRIENDS, side="right")) - 1
        end = min(max(fitting, start + 1), start + BLOCK, users)
        blocks.append((start, end))
        start = end
    return blocks
