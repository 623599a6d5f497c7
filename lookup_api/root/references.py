"""Where models learnt, as the registry tells it: the reference of a version, read once by whoever counts drift."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from infra.errors import NotFound
from infra.model_reference import FILE, Reference
from infra.model_routes import NIGHTLY, RELEASE, ModelRef
from infra.models import Registry
from infra.store import ObjectStore, open_store
from lookup_api.served_release import ServedRelease


class References:
    """Of one thread."""

    def __init__(self, store_uri: str, held: Callable[[], AbstractContextManager[ServedRelease | None]]) -> None:
        """held: a block that holds the served release open."""
        self._store_uri = store_uri
        self._held = held
        self._store: ObjectStore | None = None

    def version(self, model: str) -> ModelRef:
        """What a name stands for now: of `release` the model that the night pushed its ranker as.

        Raises NotFound where no release is served that has a ranker, UsageError for what cannot be a name.
        """
        if model != RELEASE:
            return ModelRef.parse(model)
        with self._held() as release:
            ranker = release.live.ranker_id if release is not None and release.live is not None else None
        if ranker is None:
            raise NotFound("no release with a ranker is served")
        return ModelRef(name=NIGHTLY, version=ranker)

    def read(self, ref: ModelRef) -> Reference | None:
        """None where the version has none. Raises NotFound, StoreError, CorruptArtifact, UsageError."""
        if self._store is None:
            self._store = open_store(self._store_uri)
        registry = Registry(self._store)
        model = registry.get(ref.name, ref.version)
        data = registry.read(model, FILE)
        return None if data is None else Reference.from_json(data, model.spec, f"{ref}: {FILE}")
