"""`pymk leaf` with a kind of model more, which ends its process: to see what a fleet makes of that.

python -m benchmarks.leaf_process leaf --store STORE --port PORT
"""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from infra.model_spec import ModelSpec
from jobs.cli import main
from lookup_api.ranking.scorers import CPU, KINDS, Float32, Scorer
from tests.suites.leaf_processes import LeafProcess

CRASHER = "crasher"


@dataclass(frozen=True, kw_only=True)
class Crasher(Scorer):
    """Opens, and scores zeros; anything else ends the process, as a fault of a library does."""

    def of_matrix(self, matrix: Float32) -> Float32:
        if matrix.any():
            os.kill(os.getpid(), signal.SIGSEGV)
        return matrix[:, 0]

    @classmethod
    def read(cls, weights: Path, spec: ModelSpec, device: str = CPU) -> "Crasher":
        return cls(spec=spec)


class BenchedLeaf(LeafProcess):
    """A leaf that knows the kind."""

    def start(self) -> None:
        self._command = [one.replace("jobs.cli", "benchmarks.leaf_process") for one in self._command]
        super().start()


if __name__ == "__main__":
    KINDS[CRASHER] = ("benchmarks.leaf_process", "Crasher")
    main()
