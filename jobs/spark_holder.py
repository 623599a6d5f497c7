"""The Spark session of a run."""

from typing import TYPE_CHECKING

from infra.settings import Settings
from infra.store import ObjectStore

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.spark_cluster import SharedFiles


class SparkHolder:
    """The run's one Spark session, started when a stage first asks and stopped at the end."""

    def __init__(self, settings: Settings, store: ObjectStore, lake: str) -> None:
        self._settings, self._store, self._lake = settings, store, lake
        self._session: SparkSession | None = None
        self._shared: SharedFiles | None = None

    def __call__(self) -> "SparkSession":
        if self._session is None:
            from jobs.spark import start_session
            from jobs.spark_cluster import SharedFiles

            self._session = start_session(self._settings)
            self._shared = SharedFiles(self._store, self._lake)
            self._shared.show(self._session)
        return self._session

    def stop(self) -> None:
        if self._session is not None:
            from jobs.spark import stop_session

            stop_session(self._session)
            self._session = None
        if self._shared is not None:
            self._shared.hide()
