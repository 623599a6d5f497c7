"""Checks a model in a process of its own: weights that crash or hang whoever opens them end that process alone."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson

from infra.errors import ExitCode, GateRefused, PymkError, UsageError
from infra.model_spec import ModelSpec, read_spec

MOST_S = 300.0
"""Time for a model to open and to score its golden batch, whatever the machine does besides."""
_ERRORS = {ExitCode.USAGE: UsageError, ExitCode.GATE_REFUSED: GateRefused}


def check_apart(folder: Path, spec: ModelSpec, most_s: float = MOST_S) -> dict[str, Any]:
    """What `check_model` finds and raises, and GateRefused for a model that ends its process or takes too long."""
    command = [sys.executable, "-m", "jobs.model_checking", str(folder.absolute())]
    try:
        done = subprocess.run(command, capture_output=True, timeout=most_s, check=False)
    except subprocess.TimeoutExpired:
        what = f"{spec.name}: did not score its golden batch within {most_s:g} s"
        raise GateRefused(what, "Export a smaller model, or a smaller batch.") from None
    if done.returncode < 0:
        ended = signal.Signals(-done.returncode).name
        raise GateRefused(f"{spec.name}: opening it ended the process ({ended})", "Save the weights again.")
    try:
        told = orjson.loads(done.stdout)
    except orjson.JSONDecodeError:
        raise PymkError(f"{spec.name}: could not be checked: {done.stderr.decode(errors='replace')[-500:]}") from None
    if error := told.get("error"):
        raise _ERRORS.get(error["exit_code"], PymkError)(error["what"], error["fix"])
    checks: dict[str, Any] = told["checks"]
    return checks


def main() -> None:
    from lookup_api.ranking.model_check import check_model

    folder = Path(sys.argv[1])
    told: dict[str, Any]
    try:
        told = {"checks": check_model(folder, read_spec(folder))}
    except PymkError as error:
        told = {"error": {"what": error.what, "fix": error.fix, "exit_code": int(error.exit_code)}}
    sys.stdout.buffer.write(orjson.dumps(told))


if __name__ == "__main__":
    main()
