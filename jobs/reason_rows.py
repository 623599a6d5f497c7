"""Reasons as Arrow arrays: codes become the names and values of the lake."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from infra.graph import Graph
from infra.schemas import REASON
from lookup_api.ranking.reasons import KINDS, Reasons


@dataclass(frozen=True)
class ReasonNames:
    """names: attributes, then affiliation kinds. values: values of all attributes in code order, then entity ids."""

    names: pa.StringArray
    values: pa.StringArray

    @classmethod
    def open(cls, folder: Path, graph: Graph) -> "ReasonNames":
        """Reads the text beside a graph's arrays."""
        names = pa.array([*graph.attributes, *graph.kinds], pa.string())
        values = _column(folder / "attribute_values.parquet", "value")
        entities = _column(folder / "entities.parquet", "entity_id")
        return cls(names, pa.concat_arrays([values, entities]))

    def rows(self, reasons: Reasons) -> pa.ListArray:
        """list<REASON>, one list a pair."""
        columns = [
            pa.array(KINDS, pa.string()).take(pa.array(reasons.kind)),
            self.names.take(_index(reasons.name, -1)),
            self.values.take(_index(reasons.value, -1)),
            _index(reasons.count, 0),
        ]
        return pa.ListArray.from_arrays(
            pa.array(reasons.offsets), pa.StructArray.from_arrays(columns, fields=list(REASON))
        )


def _index(values: npt.NDArray[np.int32], none: int) -> pa.Array:
    mask: Any = values == none
    return pa.array(values, pa.int32(), mask=mask)


def _column(path: Path, name: str) -> pa.StringArray:
    return pq.read_table(path, columns=[name])[name].cast(pa.string()).combine_chunks()
