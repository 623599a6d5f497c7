"""Feast's feature server with the same rows in a Redis of its own kind of keys. Runs in an environment of Feast's own:

    python -m venv feast && feast/bin/pip install 'feast[redis]'
    feast/bin/python benchmarks/feast_peer.py FOLDER ROWS.parquet REDIS_HOST:PORT PORT

Loads the rows, says so on stdout, and becomes `feast serve` with one worker.
"""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import Array, Float32, Int64, String
from feast.value_type import ValueType

BATCH = 2000
SETTINGS = """
project: bench
registry: {folder}/registry.db
provider: local
online_store:
  type: redis
  connection_string: {redis}
offline_store:
  type: file
entity_key_serialization_version: 3
"""


def main() -> None:
    folder, rows, redis, port = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    (folder / "feature_store.yaml").write_text(SETTINGS.format(folder=folder, redis=redis))
    load(FeatureStore(repo_path=str(folder)), rows)
    program = str(Path(sys.executable).with_name("feast"))
    said = [
        "-h",
        "127.0.0.1",
        "-p",
        port,
        "--no-access-log",
        "--workers",
        "1",
        "--registry_ttl_sec",
        "3600",
        "--max-requests",
        "0",
    ]
    os.execv(program, [program, "-c", str(folder), "serve", *said])


def load(store: FeatureStore, rows: Path) -> None:
    """The view `people`: ids, scores and reasons of the shown, and all of that once more as one text."""
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    schema = [
        Field(name="user_id", dtype=Int64),
        Field(name="ids", dtype=Array(Int64)),
        Field(name="scores", dtype=Array(Float32)),
        Field(name="reasons", dtype=Array(String)),
        Field(name="items", dtype=String),
    ]
    source = FileSource(path=str(rows), timestamp_field="event_timestamp")
    store.apply([user, FeatureView(name="people", entities=[user], schema=schema, source=source)])
    for batch in pq.ParquetFile(rows).iter_batches(BATCH):
        frame = batch.to_pandas()
        frame["event_timestamp"] = datetime.now(UTC)
        store.write_to_online_store("people", frame)


if __name__ == "__main__":
    main()
