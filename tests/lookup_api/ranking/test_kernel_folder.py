"""Compiled kernels are never older than any of the files they were compiled from."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

CALLEE = "from lookup_api.ranking.kernels import njit\n\n@njit(cache=True)\ndef answer():\n    return {}\n"
CALLER = """from lookup_api.ranking.kernels import njit
from lookup_api.ranking.callee import answer

@njit(cache=True)
def ask():
    return answer()
"""
ASK = "from lookup_api.ranking.caller import ask; print(ask())"
ROOT = Path(__file__).parents[3]


def test_a_kernel_forgets_what_it_inlined_when_another_file_changes(tmp_path: Path) -> None:
    room = tmp_path / "lookup_api" / "ranking"
    room.mkdir(parents=True)
    (tmp_path / "lookup_api" / "__init__.py").touch()
    shutil.copy(ROOT / "lookup_api" / "ranking" / "kernels.py", room)
    (room / "caller.py").write_text(CALLER)
    answers = []
    for value in (1, 2):
        (room / "callee.py").write_text(CALLEE.format(value))
        environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
        asked = subprocess.run(
            [sys.executable, "-c", ASK], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        answers.append(asked.stdout.strip())
    assert answers == ["1", "2"]
    assert list(room.glob("__pycache__/kernels-*/**/*.nbi"))
