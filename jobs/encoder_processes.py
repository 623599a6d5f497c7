"""Training the encoder in several processes of this machine, started by torchrun."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from gnn.objective import NEGATIVES_GROUP
from infra.errors import GateRefused, PymkError, UsageError
from infra.settings import EncoderSettings
from jobs.context import StageResult
from jobs.encoder_process import ERROR, RESULT, TASK, Task


def train_together(task: Task, progress: Callable[[str], None]) -> StageResult:
    """Like train_here, in `encoder.processes` processes; the loss is that of one process within rounding."""
    refuse_too_many(task.settings.encoder)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        work = task.work or folder / "work"
        (folder / TASK).write_text(dataclasses.replace(task, work=work).to_json())
        code = _torchrun(task, folder, progress)
        if code == 0:
            return StageResult(**json.loads((folder / RESULT).read_text()))
        raise _failure(folder, code)


def refuse_too_many(encoder: EncoderSettings) -> None:
    """Raises UsageError where some process would have no friendships to learn from."""
    groups = encoder.batch_size // NEGATIVES_GROUP
    if encoder.processes > max(groups, 1):
        raise UsageError(
            f"encoder.processes: {encoder.processes} cannot share a mini-batch of {encoder.batch_size} friendships",
            f"Set encoder.batch_size to {NEGATIVES_GROUP * encoder.processes} or more: "
            f"each process takes whole groups of {NEGATIVES_GROUP} friendships.",
        )


def _torchrun(task: Task, folder: Path, progress: Callable[[str], None]) -> int:
    """Runs all processes to their end; what the first one prints is progress. Returns the exit code."""
    processes = task.settings.encoder.processes
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    command += [f"--nproc-per-node={processes}", "--module", "jobs.encoder_process", str(folder)]
    threads = max(1, task.settings.run.threads // processes)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as torchrun:
        try:
            for line in torchrun.stdout or ():
                progress(line.rstrip())
        except BaseException:
            torchrun.terminate()
            raise
    return torchrun.returncode


def _failure(folder: Path, code: int) -> PymkError:
    if (folder / ERROR).exists():
        said = json.loads((folder / ERROR).read_text())
        kinds = {kind.exit_code: kind for kind in (PymkError, UsageError, GateRefused)}
        return kinds.get(said["exit_code"], PymkError)(said["what"], said["fix"])
    return PymkError(
        f"train_encoder: a training process ended with exit code {code}; its trace is above",
        "Run again: training goes on from its last kept state.",
    )
