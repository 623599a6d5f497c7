"""train_encoder: the inductive GNN, learnt from the past view."""

from jobs.context import StageContext, StageResult
from jobs.encoder_process import Task, train_here
from jobs.encoder_processes import train_together
from jobs.warm_start import ENCODER, GRAPH, refuse_earlier_leaks


def run(ctx: StageContext) -> StageResult:
    """Writes data/encoder.safetensors and data/encoder.json; rows = parameters."""
    refuse_earlier_leaks(ctx.inputs)
    named = ctx.inputs.get(ENCODER)
    task = Task(
        settings=ctx.settings,
        graph=ctx.inputs["graph"].path,
        data=ctx.data,
        work=ctx.work,
        start=(named.path, ctx.inputs[GRAPH].path) if named else None,
    )
    train = train_together if ctx.settings.encoder.processes > 1 else train_here
    return train(task, ctx.progress)
