"""The encoder's life in a run: what outlives a kill, and what a named encoder gives."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from infra.artifacts import open_artifact
from infra.errors import PymkError, UsageError
from infra.store import open_store
from jobs import train_encoder
from jobs.context import StageContext, StageResult
from jobs.stages import stage_named
from tests.conftest import SmallRelease, small_pipeline

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TRAIN = stage_named("train_encoder")


def test_a_stages_work_folder_outlives_a_failure_and_is_gone_once_it_is_done(
    small_release: SmallRelease, spark: "SparkSession", monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []
    real = train_encoder.run

    def interrupted(ctx: StageContext) -> StageResult:
        assert ctx.work is not None
        seen.append(ctx.work)

        def stop(line: str) -> None:
            if len(list(ctx.work.glob("*"))):
                raise PymkError("stopped")

        return real(StageContext(**{**ctx.__dict__, "progress": stop}))

    flags = {"encoder.max_steps": "13"}
    monkeypatch.setattr(train_encoder, "run", interrupted)
    with small_pipeline(small_release.lake, small_release.store, spark, flags) as pipeline:
        with pytest.raises(PymkError, match="stopped"):
            pipeline.ensure(TRAIN)
        assert seen[0].name == f"encoder-{pipeline.artifact_id('encoder')}"
        assert list(seen[0].iterdir())
        said: list[str] = []
        pipeline.progress = said.append
        monkeypatch.setattr(train_encoder, "run", real)
        pipeline.ensure(TRAIN)
    assert any(line.startswith("goes on from step") for line in said)
    assert not seen[0].exists()


def test_a_named_encoder_is_a_parent_and_part_of_the_id(small_release: SmallRelease, spark: "SparkSession") -> None:
    store = open_store(small_release.store)
    with small_pipeline(small_release.lake, small_release.store, spark) as pipeline:
        named = pipeline.artifact_id("encoder")
    flags = {"encoder.warm_start": named, "encoder.max_steps": "5"}
    with small_pipeline(small_release.lake, small_release.store, spark, flags) as pipeline:
        made = pipeline.ensure(TRAIN)
        embeddings = pipeline.ensure(stage_named("embed"))
    manifest = open_artifact(store, "encoder", made["artifact_id"]).manifest
    assert manifest.parents["warm_start"] == named
    known = manifest.metrics["warm_start"]
    assert known["compared_users"] == known["users"] == embeddings["rows"]
    assert known["cosine"] > 0.95
    assert made["artifact_id"] != named
    assert embeddings["rows"] > 300


@pytest.mark.parametrize("named", ["20260101T000000Z-0123456789abcdef"])
def test_an_encoder_that_is_not_there_is_refused(
    small_release: SmallRelease, spark: "SparkSession", named: str
) -> None:
    flags = {"encoder.warm_start": named}
    with (
        small_pipeline(small_release.lake, small_release.store, spark, flags) as pipeline,
        pytest.raises(UsageError, match=f"encoder.warm_start: .* has no finished encoder {named}"),
    ):
        pipeline.ensure(TRAIN)


def test_what_is_no_artifact_id_is_refused() -> None:
    from infra.settings import load

    with pytest.raises(UsageError, match=r"encoder.warm_start: 'latest'"):
        load(None, {"encoder.warm_start": "latest"}, {})
