"""train_encoder: the inductive GNN, learnt from the past view."""

from gnn.checkpoint import save_encoder
from gnn.runtime import prepare
from gnn.train import MODEL, train
from infra.graph import Graph
from jobs.context import StageContext, StageResult


def run(ctx: StageContext) -> StageResult:
    """Writes data/encoder.safetensors and data/encoder.json; rows = parameters."""
    prepare(ctx.settings.run.threads, ctx.settings.run.seed)
    graph = Graph.open(ctx.inputs["graph"].path)
    trained = train(graph, ctx.settings.encoder, ctx.settings.run.seed, ctx.progress)
    content_hash = save_encoder(ctx.data, MODEL, trained.encoder, trained.encoder.shape)
    return StageResult(trained.metrics["parameters"], content_hash, trained.metrics)
