"""The encoder that `encoder.warm_start` names, what training needs to know of it, and the leak that it may be."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gnn.warm_start import Names, Start
from infra.artifacts import Manifest, OpenArtifact, find_manifest, open_artifact
from infra.errors import GateRefused, NotFound, UsageError
from infra.graph import Graph, Int64
from infra.store import ObjectStore
from jobs.context import Parent
from jobs.entries import contains

ENCODER, GRAPH = "warm_start", "warm_start_graph"
"""Names of the stage's inputs: the encoder, and the graph that it was trained on."""
EARLIER = "warm_start_graph/"
"""Prefix of the names of further inputs: graphs, each by the encoder that the named one descends from."""
SETTING = "encoder.warm_start"
ANOTHER = "Name an encoder of a release that is kept (`pymk release show` prints its id), or leave the setting empty."


def open_named(store: ObjectStore, named: str) -> dict[str, OpenArtifact]:
    """The named encoder, its graph, and the graphs of the encoders it descends from.

    Raises UsageError where the store lacks any of them: nobody could tell what the encoder has learnt.
    """
    encoder = _open(store, "encoder", named, f"{SETTING}: {store.uri} has no finished encoder {named}")
    graph = encoder.manifest.parents["graph"]
    missing = f"{SETTING}: {store.uri} no longer has graph {graph}, on which encoder {named} was trained"
    return {ENCODER: encoder, GRAPH: _open(store, "graph", graph, missing)} | _earlier(store, encoder.manifest)


def _earlier(store: ObjectStore, encoder: Manifest) -> dict[str, OpenArtifact]:
    """Graphs of the encoders that this one was started from, one from another."""
    found = {}
    at = encoder
    while named := at.parents.get("warm_start"):
        descends = f"{SETTING}: encoder {encoder.artifact_id} descends from {named}, of which {store.uri} no longer has"
        earlier = find_manifest(store, "encoder", named)
        if earlier is None:
            raise UsageError(f"{descends} what it was trained on", ANOTHER)
        at, graph = earlier, earlier.parents["graph"]
        found[f"{EARLIER}{named}"] = _open(store, "graph", graph, f"{descends} graph {graph}")
    return found


def start_from(encoder: Path, graph: Path, new_graph: Path) -> Start:
    """encoder, graph: data folders of the named encoder and its graph; new_graph: of the graph to train on.

    Raises GateRefused where the named encoder has learnt friendships that are held out now.
    """
    before = Graph.open(graph)
    refuse_leak(encoder.parent.name, before, Graph.open(new_graph))
    return Start(encoder, before, names_of(graph), names_of(new_graph))


def refuse_earlier_leaks(inputs: Mapping[str, Parent]) -> None:
    """Raises GateRefused where an encoder that the named one descends from has learnt what is held out now.

    Its weights live on, and the named one's graph need not have all that it learnt: people come and go.
    """
    for name, graph in inputs.items():
        if name.startswith(EARLIER):
            who = f"{name.removeprefix(EARLIER)}, from which {inputs[ENCODER].artifact_id} descends,"
            refuse_leak(who, Graph.open(graph.path), Graph.open(inputs["graph"].path))


def refuse_leak(named: str, before: Graph, now: Graph) -> None:
    """Raises GateRefused where a held-out friendship of `now` is one of the past view of `before`.

    named: the encoder that was trained on `before`.
    """
    known = known_held_out(before, now)
    if len(known):
        one, other = now.ids[now.held_out[known[0]]]
        raise GateRefused(
            f"leak: {SETTING}: encoder {named} was trained on {len(known)} of the {len(now.held_out)} "
            f"friendships that this graph holds out, such as that of users {one} and {other}{_moved(before, now)}",
            "No force passes this gate. Name an encoder of an earlier as-of (of the same run.seed where connections "
            "have no times), or leave encoder.warm_start empty.",
        )


def _moved(before: Graph, now: Graph) -> str:
    """What to know of a hold-out that begins earlier than that of the night before."""
    if before.cutoff_day is None or now.cutoff_day is None or now.cutoff_day >= before.cutoff_day:
        return ""
    ours, theirs = (np.datetime64(graph.cutoff_day, "D") for graph in (now, before))
    return (
        f"; this graph holds out what came from {ours} on, that encoder's graph from {theirs} on: where its as-of "
        "is the earlier one, many of the newest friendships are gone since, as after a wave of bans"
    )


def known_held_out(before: Graph, now: Graph) -> Int64:
    """Positions in `now.held_out` of pairs that are friends in the past view of `before`: int64, ascending.

    Not those whose friendship is of a day that `before` does not reach: they had parted, and are friends anew. Rows
    differ between graphs, so users are matched by id.
    """
    one, other = (before.rows_of(np.asarray(now.ids)[now.held_out[:, end]]) for end in (0, 1))
    asked = np.flatnonzero((one >= 0) & (other >= 0) & (now.held_out_day < before.as_of_day))
    return asked[contains(before.past.connections, one[asked], other[asked])]


def names_of(graph: Path) -> Names:
    """Reads attribute_values.parquet and entities.parquet of a graph artifact."""
    values = pq.read_table(graph / "attribute_values.parquet")
    attributes = {}
    for name in pc.unique(values["attribute"]).to_pylist():
        own = values.filter(pc.equal(values["attribute"], name)).sort_by("code")
        attributes[name] = own["value"].combine_chunks()
    entities = pq.read_table(graph / "entities.parquet").sort_by("entity")
    joined: pa.ChunkedArray = pc.binary_join_element_wise(entities["kind"], entities["entity_id"], "\0")
    return Names(attributes, joined.combine_chunks())


def _open(store: ObjectStore, kind: str, wanted: str, missing: str) -> OpenArtifact:
    try:
        return open_artifact(store, kind, wanted)
    except NotFound:
        raise UsageError(missing, ANOTHER) from None
