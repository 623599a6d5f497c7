"""Processes that train together take the steps that one process alone would take."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from infra.errors import PymkError, UsageError
from infra.settings import EncoderSettings, RunSettings, Settings
from jobs.encoder_process import Task, train_here
from jobs.encoder_processes import refuse_too_many, train_together
from tests.suites.planted import planted_graph

ENCODER = EncoderSettings(dimensions=16, hidden=16, max_steps=24, batch_size=512, fanout=8, patience=99, device="cpu")
STEPS_A_POINT = 2


def task(folder, name, processes, **others):
    encoder = ENCODER.model_copy(update={"processes": processes})
    (folder / name).mkdir()
    settings = Settings(run=RunSettings(threads=2), encoder=encoder)
    return Task(settings, folder / "graph", folder / name, **others)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("together")
    planted_graph(users=600).save(made / "graph")
    return made


@pytest.fixture(scope="module")
def alone(folder):
    return train_here(task(folder, "alone", 1), lambda line: None)


@pytest.fixture(scope="module")
def together(folder):
    said = []
    return train_together(task(folder, "together", 2, work=folder / "work"), said.append), said


def test_two_processes_have_the_losses_of_one(alone, together):
    one, two = alone.metrics["curve"], together[0].metrics["curve"]
    assert len(one) == len(two) == 1 + ENCODER.max_steps // STEPS_A_POINT
    assert [p["step"] for p in one] == [p["step"] for p in two]
    assert np.allclose([p["loss"] for p in one[1:]], [p["loss"] for p in two[1:]], atol=1e-4, rtol=0)


def test_they_end_with_its_weights_within_rounding(folder, alone, together):
    one, two = (load_file(folder / name / "encoder.safetensors") for name in ("alone", "together"))
    assert one.keys() == two.keys()
    assert max(np.abs(one[name] - two[name]).max() for name in one) < 1e-3
    assert together[0].metrics["processes"] == 2


DIES_AT_STEP_14 = """
import os, sys
from pathlib import Path
from jobs import encoder_process

def say(line):
    if line.startswith("step 14:"):
        os._exit(7)

encoder_process._say = say
encoder_process.main(Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_second_run_that_goes_on_where_the_first_was_killed_has_the_same_content_hash(folder, together, tmp_path):
    """Killed while it validates at step 14: what it has kept is of step 12."""
    killed = task(folder, "killed", 2, work=tmp_path / "work")
    (tmp_path / "task.json").write_text(killed.to_json())
    (tmp_path / "dies.py").write_text(DIES_AT_STEP_14)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    torchrun += ["--nproc-per-node=2", str(tmp_path / "dies.py"), str(tmp_path)]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(torchrun, stdin=subprocess.PIPE, cwd=root, env=environment) as ended:
        assert ended.wait() != 0  # its standard input is open until then: the processes end with it
    assert not (tmp_path / "result.json").exists()
    said = []
    again = train_together(task(folder, "again", 2, work=tmp_path / "work"), said.append)
    assert said[0] == "goes on from step 12"
    assert again.metrics["steps"] == ENCODER.max_steps
    assert again.content_hash == together[0].content_hash


@pytest.mark.slow
def test_a_second_run_from_nothing_has_the_same_content_hash(folder, together):
    assert train_together(task(folder, "anew", 2), lambda line: None).content_hash == together[0].content_hash


def test_more_processes_than_groups_are_refused_with_what_to_set():
    with pytest.raises(UsageError, match=r"encoder.processes: 3 .* 512 .*Set encoder.batch_size to 768 or more"):
        refuse_too_many(ENCODER.model_copy(update={"processes": 3}))
    refuse_too_many(ENCODER.model_copy(update={"processes": 2}))


def test_a_failure_in_the_processes_is_told_as_it_is(tmp_path):
    (tmp_path / "graph").mkdir()
    (tmp_path / "graph" / "graph.json").write_text('{"version": 99}')
    failing = task(tmp_path, "failed", 2)
    with pytest.raises(PymkError, match="graph version 99"):
        train_together(failing, lambda line: None)
