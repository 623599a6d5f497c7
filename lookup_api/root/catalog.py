"""Which model a name means: a surface, a model, one version of a model, or the ranker of the release.

Routes and newest versions are looked at in the background; what a version takes and when it was pushed never change and
are read once, so that a look at which nothing is new costs one read, and for each model that was asked for by its name
alone a listing and a read. No request reads the store itself.
"""

import logging
import threading
from dataclasses import dataclass, replace

from infra.errors import NotFound, UsageError
from infra.model_routes import CANARY, LOOKUP, RELEASE, STABLE, ModelRef, Route, Routes, RouteStore
from infra.model_spec import ModelSpec, check_model_name
from infra.models import Registry, newest_of
from infra.store import ObjectStore, open_store
from lookup_api.deadline import Deadline
from lookup_api.ranking.model_check import SCORE
from lookup_api.root.asked_models import refuse_unreadable
from lookup_api.root.canaries import Canaries
from lookup_api.root.store_reads import StoreReads

log = logging.getLogger(__name__)

MOST_NAMES = 4096
"""Names and versions that are remembered; others are read as they are asked for."""


@dataclass(frozen=True, slots=True)
class Named:
    """What was asked for and who scores: ref and spec are None for the ranker of the release. variant, shadows: of the
    surface's route, where a surface was asked for. ranker: whose scores a model of lists takes; None where it takes
    none."""

    asked: str
    ref: ModelRef | None = None
    spec: ModelSpec | None = None
    variant: str = ""
    shadows: tuple[ModelRef, ...] = ()
    ranker: "Named | None" = None

    @property
    def model(self) -> str:
        """`name@version`, or `release`."""
        return RELEASE if self.ref is None else str(self.ref)

    @property
    def is_of_lists(self) -> bool:
        return self.spec is not None and self.spec.unit == "list"


class Catalog:
    """Safe to use from any thread. It looks at the store from the first question on; what it knew holds while the store
    is away."""

    def __init__(self, store_uri: str, poll_s: float, canaries: Canaries) -> None:
        self.canaries = canaries
        self._store_uri = store_uri
        self._poll_s = poll_s
        self._store: ObjectStore | None = None
        self._routes: Routes | None = None
        self._etag: str | None = None
        self._newest: dict[str, str] = {}
        self._pushed: dict[str, dict[str, str]] = {}
        self._asked: set[str] = set()
        self._specs: dict[ModelRef, ModelSpec] = {}
        self._reads = StoreReads(poll_s)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def named(self, asked: str, user_id: int, deadline: Deadline, wanted: str | None = None) -> Named:
        """wanted: the variant of a surface, where clients choose.

        Raises NotFound where there is no such model, UsageError for a name that cannot be one or a model that takes
        other things than features, StoreError or CorruptArtifact where that cannot be told, and TooLate where it is
        not read in time: it is known to who asks again.
        """
        route = self._route(asked, deadline)
        if route is not None:
            return self._routed(asked, route, self._variant(asked, route, user_id, wanted), user_id, deadline)
        return self._who(Named(asked), self._ref(asked, deadline), user_id, deadline)

    def stable(self, surface: str, user_id: int, deadline: Deadline) -> Named:
        """Who scores for a surface where its canary does not. Raises as `named` does."""
        return self._routed(surface, self.routes(deadline).of(surface).route, STABLE, user_id, deadline)

    def spec(self, ref: ModelRef, deadline: Deadline) -> ModelSpec:
        """Raises as `named` does."""
        found = self._specs.get(ref)
        return found or self._reads.read(f"the model {ref}", lambda: self._read_spec(ref), deadline)

    def routes(self, deadline: Deadline) -> Routes:
        """Of all surfaces. Raises StoreError, CorruptArtifact and TooLate as `named` does."""
        return self._routes or self._reads.read("the routes of models", self._first_routes, deadline)

    def stop(self) -> None:
        """Without waiting for a store that hangs."""
        self._stop.set()
        self._reads.stop()
        if self._thread is not None:
            self._thread.join(1.0)

    def look(self) -> None:
        """Reads routes again, and the newest versions of models that were asked for since. Raises PymkError."""
        store = RouteStore(self._opened())
        stored = store.stored()
        etag = stored.etag if stored else None
        if self._routes is None or etag != self._etag:
            self._routes, self._etag = store.parsed(stored), etag
        asked, self._asked = self._asked, set()
        self._newest = {name: version for name in asked if (version := self._latest(name))}

    def look_at_canaries(self) -> None:
        """Takes off those that are out of bounds, of the routes that were read last. Raises what a store may."""
        if self._routes is not None and self.canaries.look(self._routes):
            self.look()
            self.canaries.changed()

    def _routed(self, surface: str, route: Route, variant: str, user_id: int, deadline: Deadline) -> Named:
        named = Named(surface, variant=variant, shadows=route.shadows)
        return self._who(named, route.of(variant), user_id, deadline)

    def _who(self, named: Named, ref: ModelRef | None, user_id: int, deadline: Deadline) -> Named:
        """The same, scored by a model; by the ranker of the release where it is None."""
        if ref is None:
            return named
        spec = self.spec(ref, deadline)
        takes_scores = spec.unit == "list" and SCORE in spec.columns
        return replace(named, ref=ref, spec=spec, ranker=self._ranker(user_id, deadline) if takes_scores else None)

    def _ranker(self, user_id: int, deadline: Deadline) -> Named:
        """Who ranks the lookup's lists for the user."""
        route = self._route(LOOKUP, deadline)
        ref = route.of(self._variant(LOOKUP, route, user_id)) if route is not None else None
        if ref is None:
            return Named(LOOKUP)
        spec = self.spec(ref, deadline)
        if spec.unit != "row":
            raise UsageError(f"{ref}: scores lists, so it ranks no {LOOKUP}", f"Route {LOOKUP} to a model of rows.")
        return Named(LOOKUP, ref, spec)

    def _route(self, asked: str, deadline: Deadline) -> Route | None:
        """Of a surface; None for what is none."""
        if asked == RELEASE or "@" in asked:
            return None
        routes = self.routes(deadline)
        return routes.of(asked).route if asked == LOOKUP or asked in routes.surfaces else None

    def _variant(self, surface: str, route: Route, user_id: int, wanted: str | None = None) -> str:
        variant = route.variant(surface, user_id, wanted)
        canary = route.canary.model if route.canary is not None and variant == CANARY else None
        return STABLE if canary is not None and self.canaries.is_off(surface, canary) else variant

    def _ref(self, asked: str, deadline: Deadline) -> ModelRef | None:
        if asked == RELEASE:
            return None
        if "@" in asked:
            return ModelRef.parse(asked)
        return ModelRef(name=asked, version=self._newest_of(check_model_name(asked), deadline))

    def _first_routes(self) -> Routes:
        """From then on they are followed."""
        if self._routes is None:
            self.look()
            self._thread = threading.Thread(target=self._follow, name="models", daemon=True)
            self._thread.start()
        assert self._routes is not None
        return self._routes

    def _newest_of(self, name: str, deadline: Deadline) -> str:
        version = self._newest.get(name) or self._reads.read(
            f"the newest version of {name}", lambda: self._read_newest(name), deadline
        )
        if len(self._asked) < MOST_NAMES:
            self._newest[name] = version
            self._asked.add(name)
        return version

    def _read_newest(self, name: str) -> str:
        version = self._latest(name)
        if version is None:
            raise NotFound(f"no model and no surface is called {name}", "`pymk model list` shows the models.")
        return version

    def _read_spec(self, ref: ModelRef) -> ModelSpec:
        found = Registry(self._opened()).get(ref.name, ref.version).spec
        refuse_unreadable(found)
        if len(self._specs) >= MOST_NAMES:
            self._specs = {}
        self._specs[ref] = found
        return found

    def _latest(self, name: str) -> str | None:
        """None where there is none."""
        pushed = Registry(self._opened()).pushed(name, self._pushed.get(name, {}))
        if pushed:
            self._pushed[name] = pushed
        else:
            self._pushed.pop(name, None)  # so that these are no more than the registry has
        return newest_of(pushed)

    def _opened(self) -> ObjectStore:
        if self._store is None:
            self._store = open_store(self._store_uri)
        return self._store

    def _follow(self) -> None:
        while True:
            try:
                self.look_at_canaries()
            except Exception as error:  # whatever a look dies of, the next one may do
                log.warning("cannot look after canaries of models in %s: %s", self._store_uri, error)
            if self._stop.wait(self._poll_s):
                return
            try:
                self.look()
            except Exception as error:
                log.warning("cannot look for models in %s: %s", self._store_uri, error)
