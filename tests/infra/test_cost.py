import subprocess
import sys

import numpy as np

from infra.cost import CostMeter


def test_memory_and_time_of_children_are_counted() -> None:
    code = "import numpy as np; a = np.ones(30_000_000); [a.sum() for _ in range(20)]; import time; time.sleep(1)"
    with CostMeter() as meter:
        subprocess.run([sys.executable, "-c", code], check=True)
    assert meter.peak_memory_bytes > 240e6
    assert meter.wall_s > 1
    assert meter.cpu_s > 0


def test_own_memory_is_counted() -> None:
    with CostMeter() as meter:
        kept = np.ones(40_000_000)
    assert meter.peak_memory_bytes > kept.nbytes
