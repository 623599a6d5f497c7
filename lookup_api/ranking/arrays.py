"""Arrays as the kernels take them: plain and read-only, so that one compiled kernel serves mapped and fresh arrays."""

from typing import Any

import numpy as np
import numpy.typing as npt

from infra.graph import Csr


def readonly(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same values as a plain array that cannot be written through."""
    plain = np.asarray(array).view(np.ndarray)
    plain.flags.writeable = False
    return plain


def pair(rows: Csr) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """(indptr, indices) of compressed rows."""
    return readonly(rows.indptr), readonly(rows.indices)
