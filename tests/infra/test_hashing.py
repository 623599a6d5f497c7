import numpy as np
import pyarrow as pa
import pytest

from infra.hashing import ContentHash, TableHash, hash_arrays, hash_tables

REASONS = pa.list_(pa.struct([("kind", pa.string()), ("count", pa.int32())]))


def table() -> pa.Table:
    return pa.table(
        {
            "id": pa.array([1, 2, 3, 4], pa.int64()),
            "score": pa.array([0.5, None, 2.0, -1.0], pa.float32()),
            "name": pa.array(["a", None, "", "xyz"]),
            "reasons": pa.array([[{"kind": "m", "count": 1}], [], None, [{"kind": "n", "count": None}] * 2], REASONS),
        }
    )


def test_the_cut_into_batches_and_files_does_not_matter() -> None:
    whole = hash_tables([table()])
    assert whole == hash_tables(table().slice(i, 1) for i in range(4))
    assert whole == hash_tables([table().slice(0, 3).to_batches()[0], *table().slice(3).to_batches()])


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("id", pa.array([1, 2, 4, 3], pa.int64())),
        ("score", pa.array([0.5, 0.0, 2.0, -1.0], pa.float32())),
        ("name", pa.array(["a", "", None, "xyz"])),
        ("name", pa.array(["ax", None, "", "yz"])),
        ("reasons", pa.array([[], [{"kind": "m", "count": 1}], None, [{"kind": "n", "count": None}] * 2], REASONS)),
        ("reasons", pa.array([[{"kind": "m", "count": 2}], [], None, [{"kind": "n", "count": None}] * 2], REASONS)),
    ],
)
def test_every_change_of_a_value_changes_the_hash(column: str, values: pa.Array) -> None:
    other = table().set_column(table().schema.get_field_index(column), column, values)
    assert hash_tables([other]) != hash_tables([table()])


def test_rows_are_counted() -> None:
    digest = TableHash()
    digest.update(table())
    digest.update(table().to_batches()[0])
    assert digest.rows == 8


def test_an_array_is_its_dtype_its_shape_and_its_values() -> None:
    values = np.arange(12, dtype=np.int32)
    hashes = {
        hash_arrays({"a": values}),
        hash_arrays({"b": values}),
        hash_arrays({"a": values.astype(np.int64)}),
        hash_arrays({"a": values.reshape(3, 4)}),
        hash_arrays({"a": values[::-1]}),
        hash_arrays({"a": values[:0]}),
    }
    assert len(hashes) == 6
    assert hash_arrays({"a": values, "b": values}) == hash_arrays({"b": values, "a": values.copy()})


def test_an_array_larger_than_a_chunk_is_hashed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(1000, dtype=np.float32).reshape(100, 10)
    whole = hash_arrays({"a": values})
    monkeypatch.setattr("infra.hashing.CHUNK", 64)
    assert hash_arrays({"a": values}) == whole


def test_parts_cannot_run_into_each_other() -> None:
    assert ContentHash().text("a", "b").text("c", "d").hexdigest() != ContentHash().text("a", "bc").hexdigest()
    assert (
        ContentHash().json("a", {"x": 1, "y": 2}).hexdigest() == ContentHash().json("a", {"y": 2, "x": 1}).hexdigest()
    )
