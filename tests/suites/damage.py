"""Lakes made wrong on purpose, each a copy of a sound one with another table of connections."""

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

Int64 = npt.NDArray[np.int64]


def read_pairs(lake: Path) -> tuple[pa.Table, Int64, Int64]:
    """All rows of connections, and their users."""
    table = pq.read_table(lake / "connections")
    return table, table["user_id"].to_numpy(), table["other_id"].to_numpy()


def with_pairs(lake: Path, to: Path, table: pa.Table, user: Int64, other: Int64) -> Path:
    """A copy of the lake whose connections are between those users, with everything else of the rows kept."""
    shutil.copytree(lake, to)
    shutil.rmtree(to / "connections")
    (to / "connections").mkdir()
    for name, column in (("user_id", user), ("other_id", other)):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(column))
    pq.write_table(table, to / "connections" / "part-00000.parquet")
    return to


def shuffled(lake: Path, to: Path, share: float, keep_degrees: bool, seed: int = 1) -> Path:
    """A share of the rows lead to somebody else: to each other's ends, so that all keep their number of friends, or to
    anyone."""
    table, user, other = read_pairs(lake)
    draw = np.random.default_rng(seed)
    chosen = np.flatnonzero(draw.random(len(user)) < share)
    everybody = np.unique(np.concatenate([user, other]))
    ends = draw.permutation(other[chosen]) if keep_degrees else draw.choice(everybody, len(chosen))
    other = other.copy()
    other[chosen] = ends
    sound = user != other
    return with_pairs(lake, to, table.filter(pa.array(sound)), user[sound], other[sound])
