"""A training run that dies goes on from what it kept, and ends as if nothing had happened."""

import json
import signal
import subprocess
import sys

import pytest
import torch

from gnn import trainer
from gnn.checkpoint import hash_tensors
from gnn.optimise import RowAdam
from gnn.runtime import prepare
from gnn.train import train
from gnn.training_state import NAME, Saved, StateFile, restore, tensors_of
from infra.errors import CorruptArtifact
from infra.settings import EncoderSettings
from tests.suites.planted import planted_graph

SETTINGS = EncoderSettings(dimensions=16, hidden=16, max_steps=60, batch_size=256, fanout=8)


class Killed(Exception):
    """Stands for a kill in this process."""


def run(work, settings=SETTINGS, progress=lambda line: None, seed=17):
    prepare(threads=1, seed=seed)
    return train(planted_graph(), settings, seed, progress, work=work)


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
    with pytest.raises(Killed):
        run(tmp_path, progress=lines_until(line))
    said = []
    again = run(tmp_path, progress=said.append)
    assert hash_tensors(again.encoder.state_dict()) == hash_tensors(quiet.encoder.state_dict())
    assert again.metrics == quiet.metrics
    assert any(one.startswith("goes on from step") for one in said) == (line > 2)


def test_a_state_between_validations_is_as_good(tmp_path, quiet, monkeypatch):
    monkeypatch.setattr(trainer, "STATE_STEPS", 3)
    with pytest.raises(Killed):
        run(tmp_path, progress=lines_until(5))
    said = []
    again = run(tmp_path, progress=said.append)
    assert again.metrics == quiet.metrics
    assert hash_tensors(again.encoder.state_dict()) == hash_tensors(quiet.encoder.state_dict())
    step = int(said[0].split()[-1])
    assert step % 3 == 0, said


def test_a_finished_run_is_gone_through_again_from_its_last_state(tmp_path, quiet):
    run(tmp_path)
    assert hash_tensors(run(tmp_path).encoder.state_dict()) == hash_tensors(quiet.encoder.state_dict())


def test_the_state_of_other_settings_or_another_seed_is_left_alone(tmp_path):
    run(tmp_path, SETTINGS.model_copy(update={"max_steps": 12}))
    said = []
    run(tmp_path, SETTINGS.model_copy(update={"max_steps": 13}), said.append)
    run(tmp_path, SETTINGS.model_copy(update={"max_steps": 13}), said.append, seed=18)
    assert not any(line.startswith("goes on") for line in said)


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
import sys
from pathlib import Path
from tests.gnn.test_training_state import run, hash_tensors
trained = run(Path(sys.argv[1]), progress=lambda line: print(line, flush=True))
print(hash_tensors(trained.encoder.state_dict()))
"""


def test_a_process_killed_while_it_writes_or_trains_goes_on(tmp_path, quiet):
    command = [sys.executable, "-c", TRAIN_AND_TELL, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(4):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    assert said[0].startswith("goes on from step")
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
    assert StateFile(tmp_path, {"seed": 2}).load() is None


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
