"""embed: unit vectors of everyone in both views, by one encoder."""

from typing import Any

import numpy as np

from gnn.embed import embed
from gnn.runtime import device_of, prepare
from infra.graph import Graph, ViewName, open_array
from infra.hashing import hash_arrays
from jobs.context import StageContext, StageResult

VIEWS: tuple[ViewName, ...] = ("past", "now")


def run(ctx: StageContext) -> StageResult:
    """Writes data/past.npy and data/now.npy, float32 [N, D]; rows = users."""
    prepare(ctx.settings.run.threads, ctx.settings.run.seed)
    graph = Graph.open(ctx.inputs["graph"].path)
    device = device_of(ctx.settings.encoder.device)
    for view in VIEWS:
        np.save(ctx.data / f"{view}.npy", embed(ctx.inputs["encoder"].path, graph, view, device.type))
    embeddings: dict[str, Any] = {view: open_array(ctx.data / f"{view}.npy") for view in VIEWS}
    metrics = {"device": device.type, "dimensions": ctx.settings.encoder.dimensions}
    return StageResult(graph.users, hash_arrays(embeddings), metrics)
