"""The encoder that `encoder.warm_start` names, and what training needs to know of it."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gnn.warm_start import Names, Start
from infra.artifacts import OpenArtifact, open_artifact
from infra.errors import NotFound, UsageError
from infra.graph import Graph
from infra.store import ObjectStore

ENCODER, GRAPH = "warm_start", "warm_start_graph"
"""Names of the stage's inputs: the encoder, and the graph that it was trained on."""


def open_named(store: ObjectStore, named: str) -> dict[str, OpenArtifact]:
    """The named encoder and its graph. Raises UsageError where the store lacks one of them."""
    encoder = _open(store, "encoder", named, f"encoder.warm_start: {store.uri} has no finished encoder {named}")
    graph = encoder.manifest.parents["graph"]
    missing = f"encoder.warm_start: {store.uri} no longer has graph {graph}, on which encoder {named} was trained"
    return {ENCODER: encoder, GRAPH: _open(store, "graph", graph, missing)}


def start_from(encoder: Path, graph: Path, new_graph: Path) -> Start:
    """encoder, graph: data folders of the named encoder and its graph; new_graph: of the graph to train on."""
    return Start(encoder, Graph.open(graph), names_of(graph), names_of(new_graph))


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
        fix = "`pymk release show` prints the artifact ids of a release."
        raise UsageError(missing, fix) from None
