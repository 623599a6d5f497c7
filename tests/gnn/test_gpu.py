"""What a GPU computes is what a CPU computes, within rounding; skipped where torch finds no GPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from gnn.checkpoint import hash_tensors, save_encoder
from gnn.embed import embed
from gnn.models import MODELS
from gnn.optimise import RowAdam
from gnn.processes import Processes
from gnn.runtime import prepare
from gnn.sparse import sparse_product
from gnn.train import Trained, train
from infra.graph import Graph
from infra.settings import EncoderSettings, RunSettings, Settings
from jobs.encoder_process import Task
from jobs.encoder_processes import train_together
from tests.suites.planted import planted_graph

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU"),
]
STEPS = 60
SETTINGS = EncoderSettings(
    dimensions=32, hidden=32, max_steps=STEPS, batch_size=256, fanout=8, device="cpu", precision="float32", patience=99
)
GPU, GPU_MIXED = {"device": "cuda"}, {"device": "cuda", "precision": "bfloat16"}


@pytest.fixture(scope="module")
def graph() -> Graph:
    return planted_graph(users=1200, communities=12, inside=0.2)


def trained(graph: Graph, change: dict[str, str], **others: object) -> tuple[Trained, list[float]]:
    """The result and the loss of every step."""
    prepare(threads=2, seed=17)
    losses: list[float] = []
    result = train(
        graph,
        SETTINGS.model_copy(update=change),
        17,
        lambda line: None,
        watch=lambda step, loss: losses.append(loss),
        **others,
    )
    return result, losses


@pytest.fixture(scope="module", params=list(MODELS))
def on_cpu(request: pytest.FixtureRequest, graph: Graph) -> tuple[str, Trained, list[float]]:
    return request.param, *trained(graph, {"model": request.param})


def best_gain(result: Trained) -> float:
    return max(point["gain"] for point in result.metrics["curve"])


def test_one_encoder_embeds_everyone_alike_on_both(
    graph: Graph, on_cpu: tuple[str, Trained, list[float]], tmp_path: Path
) -> None:
    model, result, _ = on_cpu
    save_encoder(tmp_path, model, result.encoder, result.encoder.shape)
    for view in ("past", "now"):
        cpu, gpu = (embed(tmp_path, graph, view, device) for device in ("cpu", "cuda"))
        assert np.abs(cpu - gpu).max() < 1e-5
        assert (cpu * gpu).sum(1).min() > 1 - 1e-6


def test_the_losses_of_every_step_are_those_of_a_cpu(graph: Graph, on_cpu: tuple[str, Trained, list[float]]) -> None:
    model, result, losses = on_cpu
    gpu, on_gpu = trained(graph, GPU | {"model": model})
    assert gpu.metrics["device"] == "cuda"
    assert len(losses) == len(on_gpu) == STEPS
    assert np.allclose(losses, on_gpu, rtol=0, atol=1e-3)
    assert best_gain(gpu) == pytest.approx(best_gain(result), abs=0.01)


def test_mixed_precision_learns_as_well(graph: Graph, on_cpu: tuple[str, Trained, list[float]]) -> None:
    model, result, losses = on_cpu
    mixed, on_gpu = trained(graph, GPU_MIXED | {"model": model})
    assert mixed.metrics["precision"] == "bfloat16"
    assert on_gpu != losses
    assert np.allclose(losses, on_gpu, rtol=0.02)
    assert best_gain(mixed) == pytest.approx(best_gain(result), abs=0.02)


@pytest.mark.parametrize("change", [GPU, GPU_MIXED], ids=["float32", "bfloat16"])
def test_two_runs_have_the_same_weights(graph: Graph, change: dict[str, str]) -> None:
    one, two = (hash_tensors(trained(graph, change)[0].encoder.cpu().state_dict()) for _ in range(2))
    assert one == two


def test_a_run_that_died_goes_on_to_the_same_weights(graph: Graph, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(step: int, loss: float) -> None:
        if step == 32:
            raise Killed

    prepare(threads=2, seed=17)
    with pytest.raises(Killed):
        train(graph, SETTINGS.model_copy(update=GPU), 17, lambda line: None, work=tmp_path, watch=kill)
    again, steps = trained(graph, GPU, work=tmp_path)
    assert len(steps) == STEPS - 30
    undisturbed, _ = trained(graph, GPU)
    assert hash_tensors(again.encoder.cpu().state_dict()) == hash_tensors(undisturbed.encoder.cpu().state_dict())


def test_rows_are_summed_over_nccl() -> None:
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        table = torch.nn.Parameter(torch.ones(5, 2, device="cuda"))
        rows, slopes = torch.tensor([[3, 1, 3]]), torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        table.grad = torch.sparse_coo_tensor(rows, slopes, (5, 2)).cuda()
        summed = Processes(torch.device("cuda", 0))._summed_rows(table)
    finally:
        dist.destroy_process_group()
    assert summed._indices().tolist() == [[1, 3]]
    assert summed._values().tolist() == [[3, 4], [6, 8]]


def test_a_product_has_the_gradient_of_a_cpu() -> None:
    draw = torch.Generator().manual_seed(1)
    counts = torch.randint(0, 6, (50,), generator=draw)
    indptr = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    indices = torch.randint(0, 30, (int(indptr[-1]),), generator=draw)
    weights, dense = torch.rand(len(indices), generator=draw), torch.randn(31, 8, generator=draw)
    found = []
    for device in ("cpu", "cuda"):
        leaf = dense.detach().clone().to(device).requires_grad_()
        product = sparse_product(indptr.to(device), indices.to(device), weights.to(device), leaf)
        product.square().sum().backward()
        assert leaf.grad is not None
        found.append((product.detach().cpu(), leaf.grad.cpu()))
    for cpu, gpu in zip(*found, strict=True):
        assert torch.allclose(cpu, gpu, atol=1e-5)


def test_row_steps_are_those_of_a_cpu() -> None:
    rows, slopes = torch.tensor([[4, 1, 4]]), torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    tables = []
    for device in ("cpu", "cuda"):
        table = torch.nn.Parameter(torch.zeros(5, 2, device=device))
        optimiser = RowAdam([table], 0.1)
        for _ in range(3):
            table.grad = torch.sparse_coo_tensor(rows, slopes, (5, 2)).to(device)
            optimiser.step()
        tables.append(table.detach().cpu())
    assert torch.allclose(*tables, atol=1e-6)


def test_torchrun_starts_one_process_on_the_gpu(graph: Graph, tmp_path: Path) -> None:
    graph.save(tmp_path / "graph")
    (tmp_path / "data").mkdir()
    settings = Settings(run=RunSettings(threads=2), encoder=SETTINGS.model_copy(update=GPU | {"max_steps": 12}))
    result = train_together(Task(settings, tmp_path / "graph", tmp_path / "data"), lambda line: None)
    assert result.metrics["device"] == "cuda"
    assert result.metrics["steps"] == 12
