"""Training the encoder on the friendships of the past view.

A mini-batch holds friendships, hidden from the messages that reach their ends, and for each a friend of a friend who
is not a friend; gnn/objective.py says how they are scored. Held-out friendships of validation users say when to stop;
those of report users are never looked at.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gnn.embed import embed_rows
from gnn.inputs import Inputs, Vocabulary, feature_weights
from gnn.model import Encoder, EncoderShape
from gnn.models import MODELS
from gnn.processes import Processes
from gnn.runtime import device_of
from gnn.targets import friendships_to_learn, targets_wanted
from gnn.trainer import Trainer
from gnn.training_state import StateFile
from gnn.validate import Validation
from gnn.warm_start import Start
from infra.graph import Graph
from infra.hashing import hash_arrays
from infra.settings import EncoderSettings


@dataclass(frozen=True)
class Trained:
    encoder: Encoder
    metrics: dict[str, Any]


def train(
    graph: Graph,
    settings: EncoderSettings,
    seed: int,
    progress: Callable[[str], None],
    *,
    work: Path | None = None,
    start: Start | None = None,
    processes: Processes | None = None,
    watch: Callable[[int, float], None] = lambda step, loss: None,
) -> Trained:
    """Trains on graph.past; `gnn.runtime.prepare` comes first. Deterministic for a seed on one machine.

    work: a folder in which the run keeps its state, and from which a run that died goes on; the end is the same.
    start: a finished encoder whose weights are the first ones. processes: those who train together, else alone.
    watch: is told the number and the loss of every step.
    """
    processes = processes or Processes(device_of(settings.device))
    vocabulary = Vocabulary.of(graph)
    weights = feature_weights(vocabulary, graph, graph.past)
    encoder = _new_encoder(settings, EncoderShape(*_sizes(settings), graph.users, vocabulary), weights)
    metrics: dict[str, Any] = {
        "device": processes.device.type,
        "model": settings.model,
        "processes": processes.count,
        "parameters": sum(p.numel() for p in encoder.parameters()),
    }
    if start:
        metrics["warm_start"] = start.into(encoder, graph)
    encoder.to(processes.device)
    inputs = Inputs.of(vocabulary, weights, graph, graph.past)
    pairs = friendships_to_learn(inputs.connections, targets_wanted(inputs.connections, settings), seed)
    if not pairs.shape[1]:
        return Trained(encoder, {**metrics, "trained": False, "steps": 0, "why": "no friendships in the past view"})
    state = StateFile(work, _identity(graph, encoder, settings, seed, processes)) if work else None
    run = Trainer(encoder, inputs, Validation.of(graph, seed), settings, processes, state, progress, watch)
    run.learn(pairs)
    metrics |= {"trained": True, **run.metrics()}
    if start and processes.is_first:
        metrics["warm_start"] |= start.alignment(embed_rows(encoder.eval(), inputs), graph, seed, processes.device)
    return Trained(encoder, metrics)


def _sizes(settings: EncoderSettings) -> tuple[int, int, int]:
    return settings.dimensions, settings.hidden, settings.layers


def _identity(
    graph: Graph, encoder: Encoder, settings: EncoderSettings, seed: int, processes: Processes
) -> dict[str, Any]:
    """Whatever decides what a run computes, by name: JSON values."""
    past = graph.past
    learnt: dict[str, Any] = {
        "ids": graph.ids,
        "split": graph.split,
        "held_out": graph.held_out,
        "attribute_codes": graph.attribute_codes,
        "friends": past.connections.indices,
        "friend_counts": past.connections.degrees(),
        "affiliations": past.affiliations.indices,
        "affiliation_counts": past.affiliations.degrees(),
        "entity_kind": graph.entity_kind,
    }
    return {
        "graph": hash_arrays(learnt),
        "shape": encoder.shape.to_json(),
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "device": processes.device.type,
        "processes": processes.count,
        "torch": torch.__version__,
    }


def _new_encoder(settings: EncoderSettings, shape: EncoderShape, weights: Any) -> Encoder:
    encoder = MODELS[settings.model](shape)
    encoder.feature_weights.copy_(torch.from_numpy(weights))
    return encoder
