"""What people and the pipeline do with models: push one that was checked, route to it, promote it, go back."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from infra.audit import recorded, who
from infra.errors import GateRefused, UsageError
from infra.model_routes import (
    LOOKUP,
    RELEASE,
    Canary,
    Edit,
    ModelRef,
    Route,
    Routes,
    RouteStore,
    Surface,
    promoted,
    rolled_back,
    routed,
)
from infra.models import ModelVersion, Registry
from infra.store import ObjectStore
from infra.times import format_time
from jobs.gates import INTEGRITY, Finding
from jobs.model_checking import check_apart
from jobs.online_outcomes import Outcomes

NONE = "none"
"""In place of a canary or of shadows: without any."""


def push_model(store: ObjectStore, folder: Path) -> ModelVersion:
    """Checks a model's folder and adds it to the registry; nobody is routed to it by that."""
    return Registry(store).push(folder, check_apart, _now(), who())


@dataclass(frozen=True)
class RouteChange:
    """What is to differ from the route as it is; None leaves a part as it is.

    stable: name@version, or `release`. canary: name@version, or `none`. shadows: several name@version, or `none`.
    """

    stable: str | None = None
    canary: str | None = None
    share: float | None = None
    sticky: str | None = None
    salt: str | None = None
    shadows: Sequence[str] | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in vars(self).values())

    def of(self, route: Route) -> Route:
        """Raises UsageError."""
        stable, shadows = route.stable, route.shadows
        if self.stable is not None:
            stable = None if self.stable == RELEASE else ModelRef.parse(self.stable)
        if self.shadows is not None:
            shadows = tuple(ModelRef.parse(text) for text in self.shadows if text != NONE)
        return Route(stable=stable, canary=self._canary(route.canary), shadows=tuple(dict.fromkeys(shadows)))

    def _canary(self, before: Canary | None) -> Canary | None:
        told = {k: v for k in ("share", "sticky", "salt") if (v := getattr(self, k)) is not None}
        if self.canary == NONE and told:
            raise UsageError(f"--{next(iter(told))} without a canary", "Name one, or drop the option.")
        if self.canary is None and before is None and told:
            raise UsageError(f"--{next(iter(told))}: there is no canary", "Name one with --canary NAME@VERSION.")
        if self.canary == NONE or (self.canary is None and before is None):
            return None
        model = ModelRef.parse(self.canary) if self.canary is not None else None
        if before is not None and model in (None, before.model):
            return _canary(before.model_dump() | told)
        if "share" not in told:
            raise UsageError(f"--canary {model}: without a share", "Say which, from 0 to 1, such as --share 0.05.")
        return _canary({"model": str(model)} | told)


def _canary(values: dict[str, Any]) -> Canary:
    try:
        return Canary.model_validate(values)
    except ValidationError as error:
        one = error.errors()[0]
        raise UsageError(f"--{one['loc'][0]} {one['input']}: {one['msg'][:1].lower()}{one['msg'][1:]}") from None


def change_route(
    store: ObjectStore, surface: str, change: RouteChange, *, force: bool = False, reason: str | None = None
) -> Surface:
    """Moves a surface to other models. Raises NotFound for one that was not pushed, UsageError for a stopped one,
    unless forced, and for one of lists where rankers are routed."""

    def edit(before: Surface) -> Surface:
        route = change.of(before.route)
        _refuse_unfit(store, surface, route)
        return routed(route, force=force)(before)

    return _changed(store, surface, "route", edit, reason)


def roll_back(store: ObjectStore, surface: str, reason: str | None = None, *, force: bool = False) -> Surface:
    """Moves a surface to the route before, but for its canary and shadows that were stopped. Raises PymkError where
    there is none, NotFound where its models are gone, UsageError where its stable model was stopped, unless forced."""
    undo = rolled_back(reason or "rolled back", _time(), force=force)

    def edit(before: Surface) -> Surface:
        after = undo(before)
        _refuse_unfit(store, surface, after.route)
        return after

    return _changed(store, surface, "rollback", edit, reason)


@dataclass(frozen=True)
class Promotion:
    """A canary that is to become stable, as its gates see it. outcomes: of the people shown, where they are known."""

    store: ObjectStore
    surface: str
    before: Surface
    canary: Canary
    outcomes: Outcomes | None = None


PromotionGate = Callable[[Promotion], Iterator[Finding]]
"""What is against a promotion."""


def sound(promotion: Promotion) -> Iterator[Finding]:
    """The model's files are whole and it scores its golden batch here and now, as it did when it was pushed."""
    model, folder = Registry(promotion.store).open(promotion.canary.model.name, promotion.canary.model.version)
    try:
        check_apart(folder, model.spec)
    except GateRefused as error:
        yield Finding(INTEGRITY, error.what, True)


def no_worse(promotion: Promotion) -> Iterator[Finding]:
    """Whom it showed is clicked, invited and accepted as often as whom the stable model did, but for chance."""
    if promotion.outcomes is None:
        return
    if promotion.outcomes.canary != str(promotion.canary.model):
        raise UsageError(f"{promotion.surface}: its route changed meanwhile", "Look at it and promote again.")
    yield from promotion.outcomes.findings()


PROMOTION_GATES: tuple[PromotionGate, ...] = (sound, no_worse)
"""All are asked; integrity is passed by no force."""


def promote(
    store: ObjectStore,
    surface: str,
    *,
    force: bool = False,
    reason: str | None = None,
    outcomes: Outcomes | None = None,
    gates: Sequence[PromotionGate] = PROMOTION_GATES,
) -> tuple[Surface, list[Finding]]:
    """Makes the canary stable, and what gates had to say that was no refusal, or was passed by force. outcomes: of the
    people whom it and the stable model showed; None where nobody looked.

    Raises GateRefused naming every gate that refused, PymkError where there is no canary.
    """
    before = RouteStore(store).read().of(surface)
    promoted(before)
    canary = before.route.canary
    assert canary is not None
    findings = [found for gate in gates for found in gate(Promotion(store, surface, before, canary, outcomes))]
    refused = [one for one in findings if one.refuses and (one.gate == INTEGRITY or not force)]
    if refused:
        told = "; ".join(str(one) for one in refused)
        way = "" if any(one.gate == INTEGRITY for one in refused) else " --force --reason TEXT passes it all the same."
        raise GateRefused(f"{canary.model} is not promoted on {surface}: {told}", f"The route is unchanged.{way}")

    def edit(now: Surface) -> Surface:
        if now.route != before.route:
            raise UsageError(f"{surface}: its route changed meanwhile", "Look at it and promote again.")
        return promoted(now)

    return _changed(store, surface, "promote", edit, reason), findings


def _changed(store: ObjectStore, surface: str, action: str, edit: Edit, reason: str | None) -> Surface:
    routes = RouteStore(store)
    edit(routes.read().of(surface))  # what is refused is no deed
    with recorded(store, f"model-{action}", reason) as deed:
        after = routes.change(surface, edit, _time(), who())
        deed.update(described(surface, after))
    return after


def _refuse_unfit(store: ObjectStore, surface: str, route: Route) -> None:
    """Raises NotFound for a model that was not pushed, UsageError for one of lists where rankers are routed."""
    registry = Registry(store)
    for model in route.models:
        found = registry.get(model.name, model.version)
        if found.spec.unit != "row" and (surface == LOOKUP or model in route.shadows):
            what = f"{model}: scores lists, {'a shadow' if model in route.shadows else LOOKUP} is a model of rows"
            raise UsageError(what, "Route it on a surface of its own; docs/blends.md shows how.")


def described(name: str, surface: Surface) -> dict[str, Any]:
    """A surface as `pymk model route --json` prints it."""
    return {"surface": name, **_described(surface.route)} | {
        "changed_at": surface.changed_at or None,
        "by": surface.by or None,
        "stopped": [one.model_dump(mode="json") for one in surface.stopped],
        "history": [_described(route) for route in surface.history],
    }


def _described(route: Route) -> dict[str, Any]:
    values = route.model_dump(mode="json")
    return values | {"stable": values["stable"] or RELEASE}


def uses_of(routes: Routes) -> Mapping[ModelRef, list[str]]:
    """Where each model is routed to, in words."""
    found: dict[ModelRef, list[str]] = {}
    for name, surface in routes.surfaces.items():
        route = surface.route
        if route.stable:
            found.setdefault(route.stable, []).append(f"{name}: stable")
        if route.canary:
            found.setdefault(route.canary.model, []).append(f"{name}: canary {route.canary.share:.1%}")
        for shadow in route.shadows:
            found.setdefault(shadow, []).append(f"{name}: shadow")
    return found


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _time() -> str:
    return format_time(_now())
