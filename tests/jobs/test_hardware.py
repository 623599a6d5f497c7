"""What `auto` means is part of an artifact's id."""

from typing import TYPE_CHECKING

import pytest

from infra.errors import UsageError
from infra.settings import Settings, load
from jobs import hardware
from jobs.hardware import resolved
from jobs.stages import STAGES
from tests.conftest import SmallRelease, small_pipeline

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def encoder(**flags: str) -> Settings:
    return load(None, {f"encoder.{key}": value for key, value in flags.items()}, {})[0]


@pytest.mark.parametrize(
    ("flags", "has_gpu", "expected"),
    [
        ({}, False, ("cpu", "float32")),
        ({}, True, ("cuda", "bfloat16")),
        ({"device": "cpu"}, True, ("cpu", "float32")),
        ({"device": "cuda"}, False, ("cuda", "bfloat16")),
        ({"precision": "float32"}, True, ("cuda", "float32")),
        ({"precision": "bfloat16"}, True, ("cuda", "bfloat16")),
    ],
)
def test_auto_is_what_the_machine_has(
    flags: dict[str, str], has_gpu: bool, expected: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "_has_gpu", lambda: has_gpu)
    found = resolved(encoder(**flags)).encoder
    assert (found.device, found.precision) == expected


def test_mixed_precision_on_a_cpu_is_refused() -> None:
    with pytest.raises(UsageError, match=r"encoder.precision: bfloat16 needs a GPU.*auto"):
        resolved(encoder(device="cpu", precision="bfloat16"))


def test_a_gpu_and_a_cpu_make_artifacts_of_two_ids(
    small_release: SmallRelease, spark: "SparkSession", monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = []
    for has_gpu in (False, True):
        monkeypatch.setattr(hardware, "_has_gpu", lambda has_gpu=has_gpu: has_gpu)
        pipeline = small_pipeline(small_release.lake, small_release.store, spark)
        ids.append({stage.kind: pipeline.artifact_id(stage.kind) for stage in STAGES})
    same = {kind for kind in ids[0] if ids[0][kind] == ids[1][kind]}
    assert same == {"graph"}
    explicit = small_pipeline(small_release.lake, small_release.store, spark, {"encoder.device": "cpu"})
    assert explicit.artifact_id("encoder") == ids[0]["encoder"]
