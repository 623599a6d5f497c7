"""Lists of a nightly release that a routed model ranks: what its users are shown in place of the release's own.

Candidates, features, prices of exposure, order, reasons and form are the release's; the scores are the model's. Who was
erased since is in none of them. The lists are an artifact of their own, found again like those of stages. Those of a
canary that is out of bounds, or crashes, are not kept, and it is taken off.
"""

import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.artifacts import DATA, Manifest, OpenArtifact, artifact_id, find_manifest, write_artifact
from infra.blob_writer import Blobs
from infra.cost import CostMeter
from infra.erasures import digest_of, erased_people
from infra.errors import PymkError
from infra.graph import Graph, open_array
from infra.hashing import ContentHash
from infra.kv import RANKINGS
from infra.lmdb_tables import LmdbWriter
from infra.model_routes import LOOKUP, ModelRef, Route, RouteStore
from infra.releases import Release, ReleaseStore
from infra.settings import RankSettings, RulesSettings, ServingSettings
from infra.store import ObjectStore
from infra.variants import KIND, Variant, keep_variant
from jobs.canary_lists import InHand, Routed, Unfit, refuse_drift, taken_off
from jobs.hourly import open_files
from jobs.ordering import Ordering
from jobs.rank import DEPTH, PRICES, rank_scored, reordered, rows_of
from jobs.reason_rows import ReasonNames
from jobs.scoring import Block, Scorer, blocks_of
from jobs.serving_blobs import lists_of, paged_blobs, ranking_blobs
from jobs.variant_process import make_apart
from jobs.version import VERSION
from lookup_api.canary_guard import USUAL, Bounds, Guard
from lookup_api.ranking.capped_groups import CappedGroups
from lookup_api.ranking.popular import most_connected
from lookup_api.ranking.reasons import ReasonFinder
from lookup_api.ranking.rules import caps_of

READ: dict[str, tuple[str, ...]] = {
    "graph": ("",),
    "embeddings": ("now.npy",),
    "features": ("now/",),
    "rankings": (PRICES,),
    "serving_tables": (),
}
"""What of a release's artifacts is read, by the start of its path; of serving tables the settings alone."""

Int64 = npt.NDArray[np.int64]
Chooser = Callable[[Int64], npt.NDArray[np.bool_]]
"""Whose lists are made, bool [n], of users by id."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """Lists that a route asks for. told: what, beside release and model, decides whose they are and whether they are
    kept, as JSON values. bounds: of a canary."""

    model: ModelRef
    share: float
    chooser: Chooser
    told: dict[str, Any]
    bounds: Bounds | None = None


def wanted_of(surface: str, route: Route, bounds: Bounds) -> Iterator[Wanted]:
    """The lists that a route asks for: everybody's of a stable model that is not the release's own, and those of the
    canary's users, where clients don't choose."""
    if route.stable is not None:
        yield Wanted(route.stable, 1.0, lambda ids: np.ones(len(ids), np.bool_), {"share": 1.0})
    canary = route.canary
    if canary is not None and canary.sticky == "user" and canary.share > 0:
        told = {"surface": surface, "share": canary.share, "salt": canary.salt or str(canary.model)}
        told |= {"canary_requests": bounds.requests, "canary_drift": bounds.drift}
        yield Wanted(canary.model, canary.share, lambda ids: canary.has_each(surface, ids), told, bounds)


def make_all(store: ObjectStore, release: Release, surface: str, tell: Tell, bounds: Bounds = USUAL) -> list[Variant]:
    """Makes the lists that a surface's route asks for of a release, or of the nightly that it is a delta on. Raises
    what `make` does, and GateRefused for a canary that is taken off."""
    nightly = ReleaseStore(store).get(release.nightly)
    route = RouteStore(store).read().of(surface).route
    return [_judged(store, nightly, surface, one, bounds, tell) for one in _each(surface, route, bounds)]


def rank_variants(store: ObjectStore, nightly: Release, tell: Tell, bounds: Bounds = USUAL) -> None:
    """The same for the lookup, where a failure is told and no more: a release has lists of its own."""
    try:
        route = RouteStore(store).read().of(LOOKUP).route
    except PymkError as error:
        tell(f"warning: no other model than the release's ranks: {error}")
        return
    for one in _each(LOOKUP, route, bounds):
        try:
            _judged(store, nightly, LOOKUP, one, bounds, tell)
        except (PymkError, OSError) as error:
            tell(f"warning: {one.models[0]} made no lists: {error}")


def _each(surface: str, route: Route, bounds: Bounds) -> Iterator[Route]:
    """A route for each model whose lists a route asks for, of that model alone."""
    for one in (Route(stable=route.stable), Route(canary=route.canary)):
        if any(wanted_of(surface, one, bounds)):
            yield one


def _judged(store: ObjectStore, nightly: Release, surface: str, route: Route, bounds: Bounds, tell: Tell) -> Variant:
    """`make_apart`, where a canary that is not fit is taken off. Raises GateRefused for that."""
    try:
        return make_apart(store, nightly.release_id, surface, route, bounds, tell)
    except Unfit as error:
        if route.canary is None:
            raise
        raise taken_off(store, surface, route.canary.model, nightly.release_id, error) from error


def make(
    store: ObjectStore, nightly: Release, wanted: Wanted, tell: Tell, in_hand: InHand = lambda is_in_hand: None
) -> Variant:
    """Lists of some users of a nightly release by one model. Raises what the model's opening does, and Unfit for scores
    that are not finite or, of a canary, out of bounds."""
    routed = Routed.open(store, wanted.model, wanted.bounds or USUAL, in_hand)
    parents = {kind: nightly.artifacts[kind].artifact_id for kind in READ} | {"model": routed.version.content_hash}
    if erased := erased_people(store):
        parents["erased"] = digest_of(erased)
    wanted_id = artifact_id(KIND, parents, wanted.told, nightly.time, VERSION)
    manifest = find_manifest(store, KIND, wanted_id)
    if manifest is None:
        tell(f"{wanted.model}: ranking lists for {wanted.share:.1%} of the users of {nightly.release_id}")
        opened = {kind: open_files(store, kind, nightly.artifacts[kind].artifact_id, READ[kind]) for kind in READ}
        made = Manifest(
            kind=KIND,
            artifact_id=wanted_id,
            as_of=nightly.as_of,
            parents=parents,
            settings=wanted.told,
            seed=opened["rankings"].manifest.seed,
            code_version=VERSION,
            rows=0,
            content_hash="",
            files=(),
        )
        maker = ListMaker.open(opened, routed, erased)
        manifest = _written(store, maker, wanted, made)
        tell(f"{wanted.model}: {manifest.rows:,} lists in {manifest.cost['wall_s']:.1f} s")
    variant = Variant(wanted_id, str(wanted.model), wanted.share, manifest.rows)
    keep_variant(store, nightly.release_id, variant)
    return variant


@dataclass(frozen=True)
class ListMaker:
    """Makes lists as the night did. scorer: of the routed model. guard: counts what it scores. kept: who was not erased
    since, bool [N]."""

    graph: Graph
    kept: npt.NDArray[np.bool_]
    blocks: list[Block]
    scorer: Scorer
    guard: Guard
    ordering: Ordering
    finder: ReasonFinder
    names: ReasonNames
    popular: npt.NDArray[np.int32]
    groups: CappedGroups
    rank: RankSettings
    serving: ServingSettings
    caps: tuple[int, ...]

    @classmethod
    def open(cls, opened: dict[str, OpenArtifact], routed: Routed, erased: Collection[int]) -> "ListMaker":
        """opened: the artifacts of READ. erased: ids."""
        paths = {kind: one.path for kind, one in opened.items()}
        rank = RankSettings.model_validate(opened["rankings"].manifest.settings["rank"])
        served = opened["serving_tables"].manifest.settings
        rules = RulesSettings.model_validate(served["rules"])
        graph = Graph.open(paths["graph"])
        prices = open_array(paths["rankings"] / PRICES)
        kept = ~np.isin(graph.ids, np.array(sorted(erased), np.int64))
        popular = most_connected(graph.now.connections)
        return cls(
            graph=graph,
            kept=kept,
            blocks=blocks_of(paths["features"] / "now", graph.users),
            scorer=Scorer(routed.model, open_array(paths["features"] / "now" / "user_features.npy")),
            guard=routed.guard,
            ordering=Ordering.of(rank, prices, paths["graph"], paths["embeddings"], "now"),
            finder=ReasonFinder.of(graph, "now"),
            names=ReasonNames.open(paths["graph"], graph),
            popular=popular[kept[popular]],
            groups=CappedGroups.of(graph, rules),
            rank=rank,
            serving=ServingSettings.model_validate(served["serving"]),
            caps=caps_of(rules),
        )

    def ids_of(self, block: Block) -> Int64:
        return np.array(self.graph.ids[block.first : block.last])

    def lists(self, block: Block, chosen: npt.NDArray[np.bool_]) -> tuple[Int64, Blobs]:
        """Ids, ascending, of the users of a block who are chosen, bool [users], and their lists."""
        users = (block.first + np.flatnonzero(chosen)).astype(np.int32)
        pairs = block.pairs()
        pairs = pairs.take(np.flatnonzero(chosen[pairs.user - block.first] & self.kept[pairs.candidate]))
        scores, depth = self.scorer.score(pairs), max(self.rank.per_user, DEPTH)
        self.guard.scored(0.0, scores, len(np.unique(pairs.user)))
        best = rank_scored(self.graph, "now", self.popular, users, pairs, scores, depth)
        table = rows_of(self.graph, reordered(best, self.ordering, self.rank.per_user), self.finder, self.names)
        blobs = ranking_blobs(self.graph, self.groups, lists_of(self.graph, users, table))
        return self.ids_of(block)[chosen], paged_blobs(blobs, self.serving.first_page, self.caps)


def _written(store: ObjectStore, maker: ListMaker, wanted: Wanted, manifest: Manifest) -> Manifest:
    scratch = store.scratch()
    try:
        with CostMeter() as meter:
            rows, digest = _write(scratch / DATA, maker, wanted.chooser)
        if wanted.bounds is not None:
            refuse_drift(maker.guard)
        values = vars(manifest) | {"rows": rows, "content_hash": digest, "cost": meter.as_dict()}
        return write_artifact(store, scratch, Manifest(**values))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(folder: Path, maker: ListMaker, chooser: Chooser) -> tuple[int, str]:
    """How many lists were written, and their content hash."""
    rows = 0
    with LmdbWriter(folder, maker.serving.partitions) as writer:
        for block in maker.blocks:
            chosen = chooser(maker.ids_of(block)) & maker.kept[block.first : block.last]
            if chosen.any():
                keys, blobs = maker.lists(block, chosen)
                writer.put(RANKINGS, keys, blobs.data, blobs.ends)
                rows += len(keys)
        return rows, ContentHash().text("tables", writer.finish()).hexdigest()
