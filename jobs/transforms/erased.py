"""Rows that name somebody who was erased: nothing is built from them, whatever their time and the as-of."""

import re
from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.lake import GIVEN

_NUMBER = re.compile(r"-?[0-9]+")


def without_erased(batch: pa.RecordBatch, erased: Collection[int]) -> pa.RecordBatch:
    """The rows, in the columns of infra.lake.output_schema, that name none of the erased.

    Of a bad row, whose ids may be unreadable, the whole text counts, as it would go to the quarantine.
    """
    if not erased:
        return batch
    wanted = pa.array(sorted(erased), pa.int64())
    named = np.zeros(batch.num_rows, bool)
    for name in ("user_id", "other_id"):
        if name in batch.schema.names:
            named |= np.asarray(pc.is_in(batch.column(name), wanted).to_numpy(zero_copy_only=False), bool)
    texts = {str(person) for person in erased}
    bad = np.flatnonzero(pc.is_valid(batch.column(GIVEN)).to_numpy(zero_copy_only=False))
    for row in bad.tolist():
        if not texts.isdisjoint(_NUMBER.findall(batch.column(GIVEN)[row].as_py())):
            named[row] = True
    return batch.filter(pa.array(~named)) if named.any() else batch
