"""The app as it is, in workers whose ranking model can be made to raise and whose wall clock can be made to jump.

Both cannot be done to a process from outside. A switch is a file of the folder TEST_SWITCHES, looked at each time.

    python -m tests.lookup_api.faults.faulty_app serve …     is pymk, but for the app it serves
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = "TEST_SWITCHES"
RANKER, CLOCK = "ranker", "clock"
APP = "tests.lookup_api.faults.faulty_app:create_app"


def create_app() -> Any:
    """What the server of `main` imports in every worker."""
    from lookup_api.app import create_app as real

    _install(Path(os.environ[FOLDER]))
    return real()


def _install(switches: Path) -> None:
    from lookup_api.ranking.scoring import RankingModel

    score, wall_s, wall_ns = RankingModel.score, time.time, time.time_ns

    def scored(model: Any, matrix: Any) -> Any:
        if (switches / RANKER).exists():
            raise RuntimeError("the ranker was told to raise")
        return score(model, matrix)

    def jumped_s() -> float:
        try:
            return float((switches / CLOCK).read_text())
        except (OSError, ValueError):
            return 0.0

    RankingModel.score = scored  # type: ignore[method-assign]
    time.time = lambda: wall_s() + jumped_s()
    time.time_ns = lambda: wall_ns() + int(jumped_s() * 1e9)


def main() -> None:
    from jobs import cli, serve

    serve.APP = APP
    sys.argv[0] = "pymk"
    cli.main()


if __name__ == "__main__":
    main()
