"""One shard of the index, built by a task of its own as on a worker that holds nothing yet."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from infra.artifacts import Manifest, find_manifest, write_artifact
from infra.errors import PymkError
from infra.settings import load
from infra.store import open_store
from infra.times import format_time
from jobs.pipeline import Pipeline
from jobs.stages import stage_named
from tests.suites.index_backends import clustered

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
STAGE = stage_named("build_index")


def add_embeddings(pipeline: Pipeline) -> None:
    folder = pipeline.store.scratch()
    (folder / "data").mkdir()
    for view in ("past", "now"):
        np.save(folder / "data" / f"{view}.npy", clustered(90, 8, 1))
    wanted, parents = pipeline.artifact_id("embeddings"), {"graph": pipeline.artifact_id("graph")}
    manifest = Manifest("embeddings", wanted, format_time(AS_OF), parents, {}, 17, "1", 90, "hash", ())
    write_artifact(pipeline.store, folder, manifest)


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """One whose embeddings are finished and whose graph is not in the store."""
    store = open_store(str(tmp_path / "store"), create=True)
    settings, _ = load(None, {"index.shards": "2"}, {})
    made = Pipeline("", store, AS_OF, settings, graph_id="20260101T000000Z-0000000000000000")
    add_embeddings(made)
    return made


def test_a_shard_is_built_without_fetching_the_graph(pipeline: Pipeline) -> None:
    made = pipeline.ensure(STAGE, 1)
    manifest = find_manifest(pipeline.store, "index_shard", made["artifact_id"])
    assert manifest is not None
    assert manifest.rows == 45
    assert manifest.parents["graph"] == pipeline.artifact_id("graph")
    with pytest.raises(PymkError, match=r"is not finished .*`pymk stage build_graph`"):
        pipeline.ensure(STAGE)


def test_cleaning_leaves_a_stage_at_work_its_folders(pipeline: Pipeline) -> None:
    told: list[str] = []

    def clean(line: str) -> None:
        told.append(line)
        pipeline.store.clean_scratch(0)

    pipeline.progress = clean
    made = pipeline.ensure(STAGE, 0)
    assert any(line.startswith("index now") for line in told)
    assert find_manifest(pipeline.store, "index_shard", made["artifact_id"])
    assert not list((Path(pipeline.store.uri) / ".pymk" / "tmp").iterdir())
