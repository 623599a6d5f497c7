"""`pymk model`: push, list and show models, route to them, promote a canary and go back."""

import difflib
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from infra.errors import NotFound, UsageError
from infra.model_routes import LOOKUP, VARIANTS, ModelRef, Routes, RouteStore, Surface
from infra.models import CARD, ModelVersion, Registry
from infra.releases import ReleaseStore
from infra.store import open_store
from jobs.cli_options import Config, Json, Set, Store, load_settings
from jobs.cli_output import console, output, progress, table
from jobs.cli_release import find_release

if TYPE_CHECKING:
    from jobs.online_outcomes import Outcomes

model_app = typer.Typer(help="Push, list and show models; route to them.", no_args_is_help=True)

BEST = (5, 10, 20)
"""How many of the best are compared, if not said otherwise."""

OnSurface = Annotated[str, typer.Argument(help=f"Surface that the models rank for; {LOOKUP} is the lookup's.")]
Why = Annotated[str | None, typer.Option("--reason", help="Why, kept in the store's folder audit.")]


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise UsageError(f"--share {text}: is not a share from 0 to 1", "Write for example --share 0.05.")
    return share


@model_app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="Folder with model.toml, weights/, golden.parquet and card.md.")],
    store: Store,
    json: Json = False,
) -> None:
    """Check a model and add it to the registry; nobody is routed to it by that."""
    from jobs.model_rollout import push_model

    model = push_model(open_store(store, writable=True), folder)
    rows, off = model.checks["rows"], model.checks["largest_difference"]
    said = f"{model.name}@{model.version}: {rows:,} golden rows scored as they should be, {off:.2g} off at most"
    output.show(summary(model, ()), json, lambda c: c.print(said, markup=False))


@model_app.command("list")
def list_(
    store: Store,
    name: Annotated[str | None, typer.Argument(help="Versions of this model alone.")] = None,
    json: Json = False,
) -> None:
    """All models and where they are routed to, by name and time."""
    from jobs.model_rollout import uses_of

    opened = open_store(store)
    uses = uses_of(RouteStore(opened).read())
    models = [summary(one, uses.get(ref_of(one), ())) for one in Registry(opened).list(name)]
    rows = [
        (m["model"], m["kind"], m["objective"], m["pushed_at"], f"{m['bytes']:,}", ", ".join(m["routed"]))
        for m in models
    ]
    columns = ["model", "kind", "objective", "pushed", "bytes", "routed"]
    output.show({"models": models}, json, lambda c: c.print(table("models" if models else "no models", columns, rows)))


@model_app.command()
def show(
    model: Annotated[str, typer.Argument(help="NAME@VERSION, or NAME for the version pushed last.")],
    store: Store,
    json: Json = False,
) -> None:
    """What a model is, what it needs, and where it is routed to; its files are verified."""
    from jobs.model_rollout import uses_of

    opened = open_store(store)
    registry = Registry(opened)
    ref = ModelRef.parse(model) if "@" in model else ref_of(_latest(registry, model))
    found, folder = registry.open(ref.name, ref.version)
    card = (folder / CARD).read_text(errors="replace")
    told = summary(found, uses_of(RouteStore(opened).read()).get(ref, ()))
    told |= {"spec": found.spec.values(), "files": [vars(one) for one in found.files], "card": card}
    output.show(told, json, lambda c: _print_model(c, found, told))


@model_app.command()
def route(
    store: Store,
    surface: OnSurface = LOOKUP,
    stable: Annotated[
        str | None, typer.Option(help="NAME@VERSION for all but the canary's share; `release` for its own ranker.")
    ] = None,
    canary: Annotated[str | None, typer.Option(help="NAME@VERSION for a share, or `none`.")] = None,
    share: Annotated[
        float | None,
        typer.Option(parser=_share, metavar="<float>", help="Of the users, 0 to 1, for the canary."),
    ] = None,
    sticky: Annotated[
        str | None,
        typer.Option(help="`user`: by user, precomputed too; `client`: who asks /v1/score for it has it."),
    ] = None,
    salt: Annotated[str | None, typer.Option(help="Canaries of one salt have the same users.")] = None,
    shadow: Annotated[
        list[str] | None, typer.Option(help="NAME@VERSION that ranks unseen; several times, or `none`.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Route to a model that was stopped.")] = False,
    reason: Why = None,
    json: Json = False,
) -> None:
    """Change which models rank on a surface, or show it; what is not named stays as it is."""
    from jobs.model_rollout import RouteChange, change_route, described

    change = RouteChange(stable, canary, share, sticky, salt, shadow)
    opened = open_store(store, writable=bool(change))
    routes = RouteStore(opened).read()
    others = _others(routes, surface)
    if change:
        after = change_route(opened, surface, change, force=force, reason=reason)
        if others:
            what = "is a new surface" if after.changed_at else "nothing is routed there"
            console.print(f"warning: {surface}: {what}. {others}", markup=False, soft_wrap=True)
    elif others:
        raise NotFound(f"{surface}: nothing is routed there", others)
    else:
        after = routes.of(surface)
    output.show(described(surface, after), json, lambda c: _print_surface(c, surface, after))


@model_app.command()
def rank(
    store: Store, surface: OnSurface = LOOKUP, config: Config = None, set_: Set = None, json: Json = False
) -> None:
    """Rank lists of the served release by the models routed to, as the next night will; servers show them at once."""
    from jobs.variant_lists import make_all
    from lookup_api.canary_guard import Bounds

    bounds = Bounds.of(load_settings(config, set_).models)
    opened = open_store(store, writable=True)
    release = find_release(ReleaseStore(opened), None)
    made = [asdict(one) for one in make_all(opened, release, surface, progress, bounds)]
    rows = [(one["model"], f"{one['share']:.1%}", f"{one['users']:,}") for one in made]
    title = f"lists of {release.nightly}" if made else "every list is the release's own"
    output.show(
        {"release_id": release.nightly, "lists": made},
        json,
        lambda c: c.print(table(title, ["model", "share", "users"], rows)),
    )


@model_app.command()
def report(
    store: Store,
    surface: OnSurface = LOOKUP,
    hours: Annotated[float, typer.Option(min=0.01, help="Of what was scored in so many hours.")] = 24.0,
    best: Annotated[
        list[int] | None, typer.Option(min=1, help="How many of the best are compared; several times.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare the shadows of a surface with what answered: ranks, scores, times, and what was dropped."""
    from jobs.shadow_report import compare

    since = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=hours)
    told = compare(open_store(store), surface, since, best or BEST)
    output.show(told, json, lambda c: _print_report(c, told))


@model_app.command()
def promote(
    store: Store,
    surface: OnSurface = LOOKUP,
    lake: Annotated[
        str | None, typer.Option(help="Lake whose impressions tell what became of whom each variant showed.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Pass its gates, but for integrity.")] = False,
    reason: Why = None,
    json: Json = False,
) -> None:
    """Make the canary of a surface stable, once its gates are met."""
    from jobs import model_rollout
    from jobs.online_outcomes import outcomes_of

    opened = open_store(store, writable=True)
    before = RouteStore(opened).read().of(surface).route
    outcomes = outcomes_of(lake, surface, before) if lake and before.canary else None
    if outcomes:
        console.print(_rates(outcomes))
    after, findings = model_rollout.promote(opened, surface, force=force, reason=reason, outcomes=outcomes)
    warnings = [str(one) for one in findings]
    if outcomes is None:
        why = "no impression names the canary" if lake else "no --lake was given"
        warnings.append(f"outcomes: nobody knows what became of whom it showed: {why}")
    for one in warnings:
        console.print(f"warning: {one}", markup=False)
    told = model_rollout.described(surface, after) | {"warnings": warnings}
    told["outcomes"] = outcomes.values() if outcomes else None
    output.show(told, json, lambda c: _print_surface(c, surface, after))


@model_app.command()
def rollback(
    store: Store,
    surface: OnSurface = LOOKUP,
    force: Annotated[bool, typer.Option(help="Go back to a stable model that was stopped.")] = False,
    reason: Why = None,
    json: Json = False,
) -> None:
    """Go back to the route before; the models that are left count as stopped and do not come back with it."""
    from jobs.model_rollout import described, roll_back

    after = roll_back(open_store(store, writable=True), surface, reason, force=force)
    output.show(described(surface, after), json, lambda c: _print_surface(c, surface, after))


def ref_of(model: ModelVersion) -> ModelRef:
    return ModelRef(name=model.name, version=model.version)


def summary(model: ModelVersion, routed: Sequence[str]) -> dict[str, Any]:
    """A model as `pymk model list --json` prints it."""
    return {
        "model": f"{model.name}@{model.version}",
        "name": model.name,
        "version": model.version,
        "kind": model.spec.kind,
        "objective": model.spec.objective,
        "inputs": len(model.spec.inputs),
        "bytes": model.size_bytes,
        "content_hash": model.content_hash,
        "pushed_at": model.pushed_at,
        "by": model.by,
        "checks": dict(model.checks),
        "routed": list(routed),
    }


def _others(routes: Routes, surface: str) -> str:
    """The surfaces that there are, in words; empty where it is one of them."""
    known = sorted({LOOKUP, *routes.surfaces})
    if surface in known:
        return ""
    near = difflib.get_close_matches(surface, known, 3, 0.5)
    told = f"There are: {', '.join(known)}."
    return f"{told} Nearest: {', '.join(near)}." if near else told


def _latest(registry: Registry, name: str) -> ModelVersion:
    found = registry.latest(name)
    if found is None:
        raise NotFound(f"{registry.store.uri}: no model {name}", "`pymk model list` shows the models.")
    return found


def _print_model(c: Console, model: ModelVersion, told: dict[str, Any]) -> None:
    spec = model.spec
    c.print(f"{told['model']}: {spec.kind}, scores a {spec.unit} for {spec.objective}", markup=False)
    c.print(f"pushed {model.pushed_at} by {model.by}, {model.size_bytes:,} bytes, verified", markup=False)
    need = spec.resources
    c.print(f"needs {need.cpu:g} cores, {need.memory_bytes:,} bytes; {need.max_rows:,} rows a call at most")
    c.print(f"routed: {', '.join(told['routed']) or 'nowhere'}", markup=False)
    rows = [(one.name, one.type, one.width, one.default, one.max_age_s or "any") for one in spec.inputs]
    c.print(table("inputs", ["name", "type", "width", "default", "seconds old at most"], rows))
    c.print(told["card"], markup=False)


def _print_surface(c: Console, name: str, surface: Surface) -> None:
    route = surface.route
    c.print(f"{name}: stable {route.stable or 'the ranker of the release'}", markup=False)
    if route.canary:
        c.print(f"canary {route.canary.model} for {route.canary.share:.1%}, by {route.canary.sticky}", markup=False)
    for shadow in route.shadows:
        c.print(f"shadow {shadow}", markup=False)
    for one in surface.stopped:
        c.print(f"stopped {one.model} at {one.at}: {one.why}", markup=False, soft_wrap=True)
    if surface.changed_at:
        c.print(f"changed {surface.changed_at} by {surface.by}; {len(surface.history)} earlier routes", markup=False)


def _rates(outcomes: "Outcomes") -> Table:
    users, shown = outcomes.users, outcomes.shown
    rows = [
        (one.reaction, str(one.stable), str(one.canary), "too few" if one.p is None else f"{one.p:.2g}")
        for one in outcomes.differences
    ]
    heads = [f"{name}: {shown[name]:,} shown to {users[name]:,}" for name in VARIANTS]
    title = f"what became of whom {outcomes.canary} and the stable model showed since {outcomes.since}"
    return table(title, ["of those shown", *heads, "p of being no worse"], rows)


def _print_report(c: Console, told: dict[str, Any]) -> None:
    models = [
        (
            one["model"],
            ", ".join(one["variants"]) or "not scored",
            _counts(one["outcomes"]),
            _counts(one["dropped"]),
            " / ".join(f"{ms:.2f}" for ms in one["ms"].values()) if one["ms"] else "",
            "" if one["drift"] is None else f"{one['drift']:.2f}",
        )
        for one in told["models"]
    ]
    title = f"{told['surface']} since {told['since']}" if models else f"{told['surface']}: no shadow scored"
    c.print(table(title, ["model", "as", "requests", "dropped", "ms p50 / p95 / p99", "drift"], models))
    rows = [
        (
            one["shadow"],
            one["answered"],
            f"{one['requests']:,}",
            *(f"{share:.1%}" for share in one["overlap"].values()),
            *(f"{one[name]:.3f}" for name in ("kendall", "spearman", "ks")),
        )
        for one in told["compared"]
    ]
    if rows:
        shares = [f"same of {k}" for k in told["compared"][0]["overlap"]]
        c.print(table("", ["shadow", "beside", "requests", *shares, "Kendall", "Spearman", "KS of scores"], rows))


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {what}" for what, number in counts.items())
