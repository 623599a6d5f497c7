"""What a stage gets and what it gives back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class Parent:
    """A finished input artifact: `path` is its data folder on this machine, verified."""

    artifact_id: str
    path: Path
    content_hash: str
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class StageContext:
    """Everything a stage may read. It never reads the clock, the environment or argv.

    inputs: kind -> finished artifact. data: the empty local folder whose content becomes the artifact.
    spark: starts the run's one Spark session at its first call. progress: reports one line to the person watching.
    shard: the index shard to build, only for the stage that has shards. work: a local folder named by the artifact,
    of this run alone while it lasts, that outlives a kill: a stage may make it and keep there what lets it go on; it is
    removed with the work done. erased: people of whom nothing may be built, whatever the as-of.
    """

    settings: Settings
    as_of: datetime
    lake: str
    inputs: Mapping[str, Parent]
    data: Path
    spark: Callable[[], "SparkSession"]
    progress: Callable[[str], None]
    shard: int | None = None
    work: Path | None = None
    erased: tuple[int, ...] = ()


@dataclass(frozen=True)
class StageResult:
    """rows: the artifact's main row count. content_hash: of the logical content. metrics: JSON values."""

    rows: int
    content_hash: str
    metrics: dict[str, Any] = field(default_factory=dict)
