"""The graph artifact: two views of one social graph as memory-mapped arrays.

A user has a `user_id` (any int64) and a `row` (0 .. N-1, the rank of the id among all active users). The *now* view
holds every fact before the as-of; the *past* view lacks the newest slice of friendships (`held_out`) and, where
facts carry times, the affiliations and interactions that came after the cutoff. Profiles have no history that could be
cut: attributes and join days are the same in both views. Models are learnt on past against held_out and applied to now.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from infra.errors import CorruptArtifact

GRAPH_VERSION = 1
NO_DAY = np.int32(-(2**31))
"""Day of a fact without a time: it has always existed."""

LEARN, VALIDATE, REPORT = 0, 1, 2
"""Values of `Graph.split`: models learn from the first, stop early on the second, and are reported on the third."""

ViewName = Literal["past", "now"]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Csr:
    """Compressed sparse rows: entries of row r are `indices[indptr[r]:indptr[r + 1]]`, ascending.

    indptr int64 [rows + 1]; indices int32 [entries]; values [entries], int32 or float32, or None.
    """

    indptr: Int64
    indices: Int32
    values: npt.NDArray[Any] | None = None

    @property
    def rows(self) -> int:
        return len(self.indptr) - 1

    @property
    def entries(self) -> int:
        return len(self.indices)

    def row(self, r: int) -> Int32:
        return self.indices[self.indptr[r] : self.indptr[r + 1]]

    def degrees(self) -> Int64:
        """Entries in each row, int64 [rows]."""
        return np.diff(self.indptr)

    def entries_of(self, rows: npt.NDArray[Any]) -> Int64:
        """Where the entries of some rows stand, row by row in the order given: places in `indices` and `values`."""
        size = self.indptr[rows + 1] - self.indptr[rows]
        first = np.cumsum(size) - size
        return np.arange(size.sum()) + np.repeat(self.indptr[rows] - first, size)

    @classmethod
    def empty(cls, rows: int, values: Any = None) -> "Csr":
        kept = None if values is None else np.empty(0, values)
        return cls(np.zeros(rows + 1, np.int64), np.empty(0, np.int32), kept)

    @classmethod
    def from_pairs(
        cls, rows: int, row: npt.NDArray[Any], column: npt.NDArray[Any], values: npt.NDArray[Any] | None = None
    ) -> "Csr":
        """Builds rows from unsorted (row, column) pairs, which must be distinct."""
        order = np.lexsort((column, row))
        indptr = np.zeros(rows + 1, np.int64)
        np.cumsum(np.bincount(row, minlength=rows), out=indptr[1:])
        kept = None if values is None else values[order]
        return cls(indptr, column[order].astype(np.int32, copy=False), kept)

    def save(self, folder: Path, name: str) -> None:
        np.save(folder / f"{name}.indptr.npy", self.indptr)
        np.save(folder / f"{name}.indices.npy", self.indices)
        if self.values is not None:
            np.save(folder / f"{name}.values.npy", self.values)

    @classmethod
    def open(cls, folder: Path, name: str) -> "Csr":
        values = folder / f"{name}.values.npy"
        return cls(
            open_array(folder / f"{name}.indptr.npy"),
            open_array(folder / f"{name}.indices.npy"),
            open_array(values) if values.exists() else None,
        )


@dataclass(frozen=True)
class View:
    """One view of the graph.

    connections: symmetric, N rows, values = day of the friendship (int32 days since 1970-01-01, NO_DAY if unknown).
    affiliations: N rows, columns are entities, values = times seen (float32).
    interactions: N rows, who acted -> on whom, values = how often (float32).
    """

    connections: Csr
    affiliations: Csr
    interactions: Csr

    PARTS = ("connections", "affiliations", "interactions")

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.PARTS:
            getattr(self, name).save(folder, name)

    @classmethod
    def open(cls, folder: Path) -> "View":
        return cls(*(Csr.open(folder, name) for name in cls.PARTS))


@dataclass(frozen=True)
class Graph:
    """Both views and what they share. N users, A attributes, E entities, H held-out friendships.

    ids: int64 [N], ascending. split: uint8 [N]. joined_day: int32 [N].
    attribute_codes: int32 [A, N], of the latest profile, -1 where missing; attributes: their names; cardinalities:
    codes of each.
    entity_kind: int16 [E], an index into `kinds`.
    held_out: int32 [H, 2] rows, smaller first. held_out_day: int32 [H].
    excluded: rows that must never be shown to a row (blocks in both directions, dismissals), now only.
    hold_out: "time" when the newest friendships were held out, "random" when there are no times.
    cutoff_day: with "time", the first day that past knows nothing of, else None.
    """

    ids: Int64
    split: npt.NDArray[np.uint8]
    joined_day: Int32
    attributes: tuple[str, ...]
    cardinalities: tuple[int, ...]
    attribute_codes: Int32
    kinds: tuple[str, ...]
    entity_kind: npt.NDArray[np.int16]
    held_out: Int32
    held_out_day: Int32
    excluded: Csr
    past: View
    now: View
    hold_out: Literal["time", "random"]
    as_of_day: int
    cutoff_day: int | None = None

    ARRAYS = ("ids", "split", "joined_day", "attribute_codes", "entity_kind", "held_out", "held_out_day")

    @property
    def users(self) -> int:
        return len(self.ids)

    def view(self, name: ViewName) -> View:
        return self.past if name == "past" else self.now

    def rows_of(self, user_ids: Int64) -> Int64:
        """The row of each id, int64, -1 where the graph does not know it."""
        at = np.searchsorted(self.ids, user_ids)
        at = np.minimum(at, max(self.users - 1, 0))
        known = self.ids[at] == user_ids if self.users else np.zeros(len(user_ids), bool)
        return np.where(known, at, -1)

    def held_out_of(self) -> Csr:
        """Held-out friends of every row, symmetric, N rows."""
        both = np.concatenate([self.held_out, self.held_out[:, ::-1]])
        return Csr.from_pairs(self.users, both[:, 0], both[:, 1])

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Every array by the name of its file, without the suffix."""
        found: dict[str, npt.NDArray[Any]] = {name: getattr(self, name) for name in self.ARRAYS}
        parts = {"excluded": self.excluded}
        for view, of in (("past", self.past), ("now", self.now)):
            parts |= {f"{view}/{name}": getattr(of, name) for name in View.PARTS}
        for name, csr in parts.items():
            found |= {f"{name}.indptr": csr.indptr, f"{name}.indices": csr.indices}
            if csr.values is not None:
                found[f"{name}.values"] = csr.values
        return found

    def save(self, folder: Path) -> None:
        """Writes the artifact's arrays. attribute values and entity names are separate Parquet files beside them."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))
        self.excluded.save(folder, "excluded")
        self.past.save(folder / "past")
        self.now.save(folder / "now")
        head = {
            "version": GRAPH_VERSION,
            "users": self.users,
            "attributes": list(self.attributes),
            "cardinalities": list(self.cardinalities),
            "kinds": list(self.kinds),
            "hold_out": self.hold_out,
            "as_of_day": self.as_of_day,
            "cutoff_day": self.cutoff_day,
        }
        (folder / "graph.json").write_text(json.dumps(head, indent=1, sort_keys=True))

    @classmethod
    def open(cls, folder: Path) -> "Graph":
        """Memory-maps a saved graph. Raises CorruptArtifact on a version this code does not know."""
        head = json.loads((folder / "graph.json").read_text())
        if head["version"] != GRAPH_VERSION:
            raise CorruptArtifact(f"{folder}: graph version {head['version']}, this code reads {GRAPH_VERSION}")
        return cls(
            **{name: open_array(folder / f"{name}.npy") for name in cls.ARRAYS},
            attributes=tuple(head["attributes"]),
            cardinalities=tuple(head["cardinalities"]),
            kinds=tuple(head["kinds"]),
            excluded=Csr.open(folder, "excluded"),
            past=View.open(folder / "past"),
            now=View.open(folder / "now"),
            hold_out=head["hold_out"],
            as_of_day=head["as_of_day"],
            cutoff_day=head.get("cutoff_day"),
        )


def open_array(path: Path) -> npt.NDArray[Any]:
    """Memory-maps a .npy file (an empty array cannot be mapped and is read)."""
    array = np.load(path, mmap_mode=None, allow_pickle=False) if _is_empty(path) else _map(path)
    return array


def _map(path: Path) -> npt.NDArray[Any]:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _is_empty(path: Path) -> bool:
    with path.open("rb") as f:
        version = np.lib.format.read_magic(f)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return 0 in reader(f)[0]
