"""The `pymk` command in a process of its own, forked from one that has loaded it: loading is most of what it takes.

stdout, stderr, the exit code and the environment are those of a real process. How one starts, and what it does about
signals, is tested with `python -m jobs.cli`.
"""

import atexit
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["jobs.cli", "pyarrow.compute", "pyarrow.parquet"])


def pymk(*arguments: str) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = FORKSERVER.Process(target=_run, args=(arguments, Path.cwd(), dict(os.environ), out, err))
        process.start()
        process.join()
        return subprocess.CompletedProcess(arguments, process.exitcode or 0, out.read_text(), err.read_text())


def pymk_json(*arguments: str, code: int = 0) -> Any:
    """What the command printed; it must end with this exit code."""
    done = pymk(*arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def _run(arguments: tuple[str, ...], folder: Path, environment: Mapping[str, str], out: Path, err: Path) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for path, descriptor in ((out, 1), (err, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        os.close(file)
    sys.argv = ["pymk", *arguments]
    from jobs.cli import main

    try:
        main()
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out
