"""Which model answers on which surface: stable, a canary for some, shadows for none; in one file that all follow.

`{store}/routes.json` changes by compare-and-swap. Every surface remembers its earlier routes, to go back to, and the
canaries that were stopped or left, which are not routed to again unless forced.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import dropwhile
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_serializer

from infra.artifacts import check_name
from infra.errors import Conflict, CorruptArtifact, NotFound, PymkError, StoreError, UsageError
from infra.model_spec import check_model_name
from infra.store import ObjectStore, StoredObject
from infra.traffic_split import place_of, places_of

FILE = "routes.json"
HISTORY = 20
"""Earlier routes of a surface that are remembered, and canaries that were stopped."""
RELEASE = "release"
"""In place of a model: the ranker of the release that is served, whichever it is."""
NIGHTLY = "nightly"
"""The model that every night pushes its ranker as a version of, named as the artifact."""
STABLE, CANARY, SHADOW = "stable", "canary", "shadow"
VARIANTS = (STABLE, CANARY)
LOOKUP = "recommendations"
"""The surface of the lookup API and of the night's rankings."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelRef(_Part):
    """A version of a model; as text, and in the file, `name@version`."""

    name: str
    version: str

    @classmethod
    def parse(cls, text: str) -> "ModelRef":
        """Raises UsageError."""
        name, separator, version = text.partition("@")
        if not separator:
            raise UsageError(f"{text!r}: names no version", "Write NAME@VERSION, as `pymk model list` does.")
        return cls(name=check_model_name(name), version=check_name(version, "version of a model"))

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    @model_serializer
    def _as_text(self) -> str:
        return str(self)


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return ModelRef.parse(value)
    except UsageError as error:
        raise ValueError(error.what) from None


Ref = Annotated[ModelRef, BeforeValidator(_parsed)]


class Canary(_Part):
    """share: of the users, who have it on every request (`sticky` is user), or the most that clients may choose it for
    (client). salt: decides which users; those of a smaller share stay as it grows.
    """

    model: Ref
    share: Annotated[float, Field(ge=0, le=1)]
    sticky: Literal["user", "client"] = "user"
    salt: Annotated[str, Field(max_length=200)] = ""

    def has(self, surface: str, user_id: int) -> bool:
        """Whether the user is of its share."""
        return place_of(surface, self.salt or str(self.model), user_id) < self.share

    def has_each(self, surface: str, user_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """`has` of many users, bool [n]."""
        return np.asarray(places_of(surface, self.salt or str(self.model), user_ids) < self.share)


class Route(_Part):
    """stable: None for the ranker of the release."""

    stable: Ref | None = None
    canary: Canary | None = None
    shadows: tuple[Ref, ...] = ()

    @property
    def models(self) -> tuple[ModelRef, ...]:
        """All that are named, once each."""
        named = [self.stable, self.canary.model if self.canary else None, *self.shadows]
        return tuple(dict.fromkeys(one for one in named if one))

    def variant(self, surface: str, user_id: int, wanted: str | None = None) -> str:
        """stable or canary. wanted: what the client asks for, where clients choose."""
        canary = self.canary
        if canary is None or (canary.sticky == "client" and wanted != CANARY):
            return STABLE
        return CANARY if canary.has(surface, user_id) else STABLE

    def variants(self, surface: str, user_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Who has the canary without asking for it, bool [n]."""
        if self.canary is None or self.canary.sticky == "client":
            return np.zeros(len(user_ids), np.bool_)
        return self.canary.has_each(surface, user_ids)

    def without(self, models: Iterable[ModelRef]) -> "Route":
        """With none of these as canary or shadow."""
        left = set(models)
        canary = self.canary if self.canary and self.canary.model not in left else None
        return Route(stable=self.stable, canary=canary, shadows=tuple(one for one in self.shadows if one not in left))

    def of(self, variant: str) -> ModelRef | None:
        """The model of a variant, None for the ranker of the release."""
        return self.canary.model if variant == CANARY and self.canary else self.stable


class Stopped(_Part):
    """A canary that was taken off, and why."""

    model: Ref
    why: str
    at: str


class Surface(_Part):
    """history: earlier routes, newest first. changed_at: RFC 3339 UTC. by: who, or what."""

    route: Route = Route()
    history: tuple[Route, ...] = ()
    stopped: tuple[Stopped, ...] = ()
    changed_at: str = ""
    by: str = ""

    def moved_to(self, route: Route) -> "Surface":
        """Forward; what is routed now counts as stopped no more."""
        left = tuple(one for one in self.stopped if one.model not in route.models)
        history = (self.route, *self.history)[:HISTORY]
        return self.model_copy(update={"route": route, "history": history, "stopped": left})

    def stopping(self, model: ModelRef, why: str, at: str) -> "Surface":
        """With the model noted as stopped."""
        others = tuple(one for one in self.stopped if one.model != model)
        noted = (Stopped(model=model, why=why, at=at), *others)[:HISTORY]
        return self.model_copy(update={"stopped": noted})

    def has_stopped(self, model: ModelRef) -> Stopped | None:
        return next((one for one in self.stopped if one.model == model), None)


SurfaceName = Annotated[str, AfterValidator(lambda name: _surface(name))]


class Routes(_Part):
    """The whole file."""

    version: Literal[1] = 1
    surfaces: dict[SurfaceName, Surface] = Field(default_factory=dict)

    def of(self, surface: str) -> Surface:
        """One that nobody routed has the ranker of the release."""
        return self.surfaces.get(surface, Surface())

    def models(self) -> set[ModelRef]:
        """All that some surface routes to, or may go back to."""
        known = (route for one in self.surfaces.values() for route in (one.route, *one.history[:1]))
        return {model for route in known for model in route.models}

    def to_json(self) -> bytes:
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "Routes":
        """Raises CorruptArtifact for bytes that are no routes."""
        try:
            return cls.model_validate(json.loads(data))
        except (ValidationError, ValueError, RecursionError) as error:
            said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            fix = "Put back a copy of the file, or delete it: then every surface has the release's own ranker."
            raise CorruptArtifact(f"{where}: no routes of models: {said}", fix) from error


Edit = Callable[[Surface], Surface]
"""What is to become of a surface. May raise, and then nothing changes."""


@dataclass(frozen=True)
class RouteStore:
    """The routes of a store. Of several who change them at once all succeed, one after the other."""

    store: ObjectStore

    def read(self) -> Routes:
        """Raises CorruptArtifact where the file is damaged."""
        return self.parsed(self.stored())

    def stored(self) -> StoredObject | None:
        try:
            return self.store.get(FILE)
        except NotFound:
            return None

    def parsed(self, stored: StoredObject | None) -> Routes:
        return Routes.from_json(stored.data, f"{self.store.uri}/{FILE}") if stored else Routes()

    def change(self, surface: str, edit: Edit, at: str, by: str) -> Surface:
        """The surface as it is then. Raises what the edit raises."""
        check_name(surface, "surface")
        if not self.store.conditional_puts:
            what = f"{self.store.uri}: the endpoint ignores conditional puts, so a change of a route could be lost"
            raise StoreError(what, "Use a store that honours If-Match and If-None-Match.")
        while True:
            stored = self.stored()
            routes = self.parsed(stored)
            before = routes.of(surface)
            after = edit(before)
            if after == before:
                return before
            after = after.model_copy(update={"changed_at": at, "by": by})
            changed = routes.model_copy(update={"surfaces": routes.surfaces | {surface: after}})
            try:
                if stored is None:
                    self.store.put(FILE, changed.to_json(), if_absent=True)
                else:
                    self.store.put(FILE, changed.to_json(), if_match=stored.etag)
            except (Conflict, NotFound):  # somebody else was first: look again
                continue
            return after


def routed(route: Route, *, force: bool = False) -> Edit:
    """To this route. Raises UsageError for one that names a stopped canary, unless forced."""

    def edit(surface: Surface) -> Surface:
        for model in route.models:
            if not force and (stopped := surface.has_stopped(model)):
                raise UsageError(
                    f"{model}: was stopped at {stopped.at}: {stopped.why}", "--force routes to it all the same."
                )
        return surface if surface.route == route else surface.moved_to(route)

    return edit


def promoted(surface: Surface) -> Surface:
    """The canary is stable now. Raises PymkError where there is none."""
    canary = surface.route.canary
    if canary is None:
        raise PymkError("there is no canary to promote", "`pymk model route SURFACE --canary NAME@VERSION` makes one.")
    shadows = tuple(one for one in surface.route.shadows if one != canary.model)
    return surface.moved_to(Route(stable=canary.model, shadows=shadows))


def rolled_back(why: str, at: str, *, force: bool = False) -> Edit:
    """To the last route that is another, but for its canary and shadows that were stopped. Models that it does not name
    count as stopped, and so does the stable one that another takes the place of. Raises PymkError where there is none,
    UsageError where its stable model was stopped, unless forced.
    """

    def edit(surface: Surface) -> Surface:
        now, gone = surface.route, [one.model for one in surface.stopped]
        earlier = list(dropwhile(lambda one: one.without(gone) == now, surface.history))
        if not earlier:
            raise PymkError("there is no earlier route to go back to")
        before = earlier[0]
        for model in now.models:
            if model not in before.models or (model == now.stable != before.stable):
                surface = surface.stopping(model, why, at)
        if before.stable and not force and (stopped := surface.has_stopped(before.stable)):
            what = f"{before.stable}: is stable in the route before, and was stopped at {stopped.at}: {stopped.why}"
            raise UsageError(what, "--force goes back to it all the same; `pymk model route --stable` names another.")
        route = before.without(one.model for one in surface.stopped)
        left = tuple(one for one in surface.stopped if one.model not in route.models)
        return surface.model_copy(update={"route": route, "history": tuple(earlier[1:]), "stopped": left})

    return edit


def without_canary(model: ModelRef, why: str, at: str) -> Edit:
    """The stable variant for all, and the canary stopped; nothing where the canary is another by now, or gone."""

    def edit(surface: Surface) -> Surface:
        canary = surface.route.canary
        if canary is None or canary.model != model:
            return surface
        after = surface.moved_to(surface.route.model_copy(update={"canary": None}))
        return after.stopping(model, why, at)

    return edit


def _surface(name: str) -> str:
    try:
        return check_name(name, "surface")
    except UsageError as error:
        raise ValueError(error.what) from None
