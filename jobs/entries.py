"""Whether pairs of rows are entries of sparse rows."""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from infra.graph import Csr, Int64


def contains(rows: Csr, row: npt.NDArray[Any], column: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether each (row, column) is an entry, bool [n]."""
    keys = (row.astype(np.int64), column.astype(np.int64))
    found: npt.NDArray[np.bool_] = _contains(np.asarray(rows.indptr), np.asarray(rows.indices), *keys)
    return found


@numba.njit(cache=True, nogil=True)
def _contains(indptr: Int64, indices: npt.NDArray[np.int32], row: Int64, column: Int64) -> Any:
    found = np.zeros(len(row), np.bool_)
    for i in range(len(row)):
        begin, end = indptr[row[i]], indptr[row[i] + 1]
        at = begin + np.searchsorted(indices[begin:end], column[i])
        found[i] = at < end and indices[at] == column[i]
    return found
