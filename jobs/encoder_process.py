"""Training the encoder in this process: alone, or as one of several that torchrun started.

`python -m torch.distributed.run … -m jobs.encoder_process FOLDER` runs in each of several: FOLDER/task.json says what
to do, and the first of them leaves FOLDER/result.json; one that cannot do it leaves FOLDER/error.json.
"""

import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gnn.checkpoint import save_encoder
from gnn.processes import Processes
from gnn.runtime import device_of, prepare
from gnn.train import train
from infra.errors import PymkError
from infra.graph import Graph
from infra.settings import Settings
from jobs.context import StageResult
from jobs.warm_start import start_from

TASK, RESULT, ERROR = "task.json", "result.json", "error.json"


@dataclass(frozen=True)
class Task:
    """graph: data folder of the graph. data: where the encoder goes. work: where the run keeps its state, if it does.

    start: data folders of the encoder to start from and of its graph.
    """

    settings: Settings
    graph: Path
    data: Path
    work: Path | None = None
    start: tuple[Path, Path] | None = None

    def to_json(self) -> str:
        paths = {"graph": self.graph, "data": self.data, "work": self.work, "start": self.start}
        return json.dumps({"settings": self.settings.model_dump(mode="json"), **paths}, default=str)

    @classmethod
    def from_json(cls, text: str) -> "Task":
        values: dict[str, Any] = json.loads(text)
        work, start = values["work"], values["start"]
        return cls(
            settings=Settings.model_validate(values["settings"]),
            graph=Path(values["graph"]),
            data=Path(values["data"]),
            work=Path(work) if work else None,
            start=(Path(start[0]), Path(start[1])) if start else None,
        )


def train_here(task: Task, progress: Callable[[str], None], processes: Processes | None = None) -> StageResult:
    """Trains and, in the first process, writes the encoder."""
    run, encoder = task.settings.run, task.settings.encoder
    prepare(max(1, run.threads // encoder.processes), run.seed)
    start = start_from(*task.start, task.graph) if task.start else None
    graph = Graph.open(task.graph)
    trained = train(graph, encoder, run.seed, progress, work=task.work, start=start, processes=processes)
    if processes and not processes.is_first:
        return StageResult(0, "")
    content_hash = save_encoder(task.data, encoder.model, trained.encoder, trained.encoder.shape)
    return StageResult(trained.metrics["parameters"], content_hash, trained.metrics)


def main(folder: Path) -> None:
    """What torchrun starts: rank and count are in the environment."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    rank, count, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    try:
        task = Task.from_json((folder / TASK).read_text())
        processes = Processes.join(device_of(task.settings.encoder.device, local), rank, count)
        result = train_here(task, _say if rank == 0 else lambda line: None, processes)
        if rank == 0:
            (folder / RESULT).write_text(json.dumps(asdict(result)))
        processes.leave()
    except PymkError as error:
        said = {"what": error.what, "fix": error.fix, "exit_code": int(error.exit_code)}
        (folder / ERROR).write_text(json.dumps(said))
        sys.exit(int(error.exit_code))


def _say(line: str) -> None:
    print(line, flush=True)


def _end_with_parent() -> None:
    """Standard input is a pipe that nobody writes to: it ends when the stage that started all this is gone."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
