"""A training run that dies goes on from what it kept, and ends as if nothing had happened."""

import json
import signal
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from gnn import trainer
from gnn.checkpoint import hash_tensors
from gnn.optimise import RowAdam
from gnn.runtime import prepare
from gnn.train import train
from gnn.training_state import NAME, Saved, StateFile, UnfitState, restore, tensors_of
from infra.errors import CorruptArtifact
from infra.hashing import hash_arrays
from infra.settings import EncoderSettings
from tests.suites.planted import planted_graph

SETTINGS = EncoderSettings(dimensions=16, hidden=16, max_steps=60, batch_size=256, fanout=8)


class Killed(Exception):
    """Stands for a kill in this process."""


def run(work, settings=SETTINGS, progress=lambda line: None, seed=17, graph=None, watch=lambda step, loss: None):
    prepare(threads=1, seed=seed)
    return train(graph or planted_graph(), settings, seed, progress, work=work, watch=watch)


def steps_of(work, **others):
    """The result, the numbers of the steps that were taken, and what was said."""
    steps, said = [], []
    result = run(work, progress=said.append, watch=lambda step, loss: steps.append(step), **others)
    return result, steps, said


@pytest.fixture(scope="module")
def quiet():
    """A run that nobody disturbs and that keeps nothing."""
    return run(None)


def lines_until(count):
    """Progress that ends the run at its count-th line; what was said stays in `.said`."""

    def progress(line):
        progress.said.append(line)
        if len(progress.said) == count:
            raise Killed

    progress.said = []
    return progress


@pytest.mark.parametrize("early", [False, True], ids=["to the end", "early stopping"])
@pytest.mark.parametrize("line", [2, 3, 7])
def test_a_run_that_ends_anywhere_goes_on_to_the_same_weights(tmp_path, quiet, monkeypatch, line, early):
    if early:
        monkeypatch.setattr(trainer, "MIN_VALIDATION_PAIRS", 1)
        quiet = run(None)
    last = quiet.metrics["steps"]
    kept = ([0] + [point["step"] for point in quiet.metrics["curve"][1:]])[line - 2]
    with pytest.raises(Killed):
        run(tmp_path, progress=lines_until(line))
    again, steps, said = steps_of(tmp_path)
    assert hash_tensors(again.encoder.state_dict()) == hash_tensors(quiet.encoder.state_dict())
    assert again.metrics == quiet.metrics
    assert [one for one in said if one.startswith("goes on")] == [f"goes on from step {kept}"] * (line > 2)
    assert steps == list(range(kept + 1, last + 1))
    assert kept < last


def kill_at(step):
    def watch(now, loss):
        if now == step:
            raise Killed

    return watch


def test_a_state_between_validations_is_as_good(tmp_path, quiet, monkeypatch):
    monkeypatch.setattr(trainer, "STATE_STEPS", 3)
    validated = {point["step"] for point in quiet.metrics["curve"]}
    last = quiet.metrics["steps"]
    between = max(step for step in range(3, last - 3, 3) if step not in validated)
    with pytest.raises(Killed):
        run(tmp_path, watch=kill_at(between + 1))
    again, steps, said = steps_of(tmp_path)
    assert said[0] == f"goes on from step {between}"
    assert steps == list(range(between + 1, last + 1))
    assert again.metrics == quiet.metrics
    assert hash_tensors(again.encoder.state_dict()) == hash_tensors(quiet.encoder.state_dict())


def test_a_finished_run_is_gone_through_again_from_its_last_state(tmp_path, quiet):
    run(tmp_path)
    assert hash_tensors(run(tmp_path).encoder.state_dict()) == hash_tensors(quiet.encoder.state_dict())


def test_the_state_of_another_run_is_said_and_training_starts_anew(tmp_path):
    few = SETTINGS.model_copy(update={"max_steps": 13})
    run(tmp_path, SETTINGS.model_copy(update={"max_steps": 12}))
    for others, what in (
        ({"settings": few}, "settings"),
        ({"settings": few, "seed": 18}, "seed"),
        ({"settings": few, "seed": 18, "graph": planted_graph(seed=6)}, "graph"),
        ({"settings": few, "seed": 18, "graph": planted_graph(users=230)}, "graph, shape"),
    ):
        _, steps, said = steps_of(tmp_path, **others)
        assert said[0] == f"{tmp_path / NAME}: the training state of a run of other {what}; training starts anew"
        assert steps[0] == 1


def rewritten(path, change):
    """A state of the same run whose tensors and head are changed, digest and all."""
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["state"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors, about)
    about["digest"] = hash_arrays({name: tensor.reshape(-1).numpy() for name, tensor in tensors.items()})
    save_file(tensors, path, metadata={"state": json.dumps(about)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors, about: tensors.pop("encoder/features.weight"), "no tensor encoder/features.weight"),
        (
            lambda tensors, about: tensors.update({"encoder/features.weight": torch.ones(2, 2)}),
            "is torch.float32 [2, 2]",
        ),
        (lambda tensors, about: tensors.update({"tables/0/moment": torch.ones(2)}), "tables/0/moment is [2]"),
        (lambda tensors, about: tensors.update({"dense/99/step": torch.ones(())}), "there is a dense/99/step"),
        (lambda tensors, about: about["head"].pop("stale"), "its head has best, best_step, curve, losses, step"),
        (lambda tensors, about: about.update(version=1), "a training state of version 1, this code reads"),
    ],
)
def test_a_state_that_does_not_fit_is_said_and_training_starts_anew(tmp_path, change, said):
    few = SETTINGS.model_copy(update={"max_steps": 12})
    first = run(tmp_path, few)
    rewritten(tmp_path / NAME, change)
    again, steps, lines = steps_of(tmp_path, settings=few)
    assert said in lines[0]
    assert lines[0].endswith("training starts anew")
    assert steps[0] == 1
    assert hash_tensors(again.encoder.state_dict()) == hash_tensors(first.encoder.state_dict())


def test_a_damaged_state_is_said_and_training_starts_anew(tmp_path, quiet):
    run(tmp_path)
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-10] + b"0123456789")
    said = []
    again = run(tmp_path, progress=said.append)
    assert "training starts anew" in said[0]
    assert str(path) in said[0]
    assert hash_tensors(again.encoder.state_dict()) == hash_tensors(quiet.encoder.state_dict())


TRAIN_AND_TELL = """
import os, signal, sys
from pathlib import Path
from tests.gnn.test_training_state import run, hash_tensors

def watch(step, loss):
    if step == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

trained = run(Path(sys.argv[1]), progress=lambda line: print(line, flush=True), watch=watch)
print(hash_tensors(trained.encoder.state_dict()))
"""


def test_a_process_that_is_killed_goes_on(tmp_path, quiet):
    kept = quiet.metrics["curve"][6]["step"]
    command = [sys.executable, "-c", TRAIN_AND_TELL, str(tmp_path)]
    killed = subprocess.run([*command, str(kept + 1)], stdout=subprocess.DEVNULL, check=False)
    assert killed.returncode == -signal.SIGKILL
    said = subprocess.run([*command, "0"], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    assert said[0] == f"goes on from step {kept}"
    assert kept < quiet.metrics["steps"]
    assert said[-1] == hash_tensors(quiet.encoder.state_dict())


def test_a_state_file_holds_no_more_than_the_last_state(tmp_path):
    file = StateFile(tmp_path, {"seed": 1})
    assert file.load() is None
    for step in (1, 2):
        file.save(Saved({"weights": torch.full((3,), float(step))}, {"step": step}))
    assert [p.name for p in tmp_path.iterdir()] == [NAME]
    kept = file.load()
    assert kept.head == {"step": 2}
    assert kept.tensors["weights"].tolist() == [2, 2, 2]
    with pytest.raises(UnfitState, match="of other seed"):
        StateFile(tmp_path, {"seed": 2}).load()


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b""])
def test_a_damaged_state_file_is_refused(tmp_path, damage):
    file = StateFile(tmp_path, {})
    file.save(Saved({"weights": torch.arange(8.0)}, json.loads("{}")))
    file.path.write_bytes(damage(file.path.read_bytes()))
    with pytest.raises(CorruptArtifact, match=NAME):
        file.load()


def test_an_optimiser_restored_takes_the_step_it_would_have_taken():
    def make():
        table, dense = torch.nn.Parameter(torch.ones(4, 2)), torch.nn.Parameter(torch.ones(3))
        return table, dense, RowAdam([table], 0.1), torch.optim.AdamW([dense], 0.1)

    def step(table, dense, rows, adam):
        table.grad = torch.sparse_coo_tensor(torch.tensor([[1, 3]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), (4, 2))
        dense.grad = torch.tensor([1.0, -2.0, 0.5])
        rows.step()
        adam.step()

    one, other = make(), make()
    step(*one)
    tensors = tensors_of(one[2], "rows") | tensors_of(one[3], "adam")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    for mine, theirs in zip(other[:2], one[:2], strict=True):
        mine.data.copy_(theirs.data)
    restore(other[2], "rows", tensors)
    restore(other[3], "adam", tensors)
    step(*one)
    step(*other)
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
