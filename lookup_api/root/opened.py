"""The root of one worker, by its settings: where models are told of, and where they are hosted; and its shadows."""

from prometheus_client import CollectorRegistry, Counter

from infra.settings import Settings
from lookup_api.breaker import Breaker
from lookup_api.canary_guard import Bounds
from lookup_api.deadline import Deadline
from lookup_api.leaf_ranks import LeafRanks
from lookup_api.leaves.fleet import LeafFleet, open_fleet, open_leaf
from lookup_api.leaves.leaf_metrics import HostMetrics
from lookup_api.leaves.local_leaf import LocalLeaf
from lookup_api.leaves.parts import InParts
from lookup_api.root.canaries import Canaries
from lookup_api.root.catalog import Catalog
from lookup_api.root.root_metrics import RootMetrics
from lookup_api.root.scoring import Root
from lookup_api.routed_models import Opened
from lookup_api.shadow_guard import ShadowGuard
from lookup_api.shadow_metrics import ShadowMetrics
from lookup_api.shadows import Shadows

OPENED_WITHIN_S = 60.0
"""A canary that this process opens."""
AT_ONCE = 16
"""Models of all requests of a worker that leaf processes are asked for at the same time."""


def open_root(
    store_uri: str, settings: Settings, counts: RootMetrics, registry: CollectorRegistry, stopped: Counter
) -> Root:
    """Nothing is read and no model opened before the first request. stopped: counts canaries that are taken off."""
    bounds, poll_s = Bounds.of(settings.models), settings.api.poll_s
    if settings.leaves.addresses:
        canaries, leaf = Canaries(store_uri, bounds, stopped), open_leaf(store_uri, settings, registry)
        return Root(Catalog(store_uri, poll_s, canaries), leaf, counts, AT_ONCE, canaries.watched)
    local = _local(store_uri, settings, HostMetrics(registry))
    canaries = Canaries(store_uri, bounds, stopped, lambda ref: local.resident(ref, Deadline.after(OPENED_WITHIN_S)))
    return Root(Catalog(store_uri, poll_s, canaries), local, counts, watched=canaries.watched)


def on_leaves(root: Root, settings: Settings) -> Opened:
    """Has routed models rank on leaf processes."""
    return lambda ref, spec, folder: LeafRanks.open(ref, spec, root.leaf, settings.leaves.shard_size)


def open_shadows(store_uri: str, settings: Settings, root: Root, registry: CollectorRegistry) -> Shadows:
    """Of models that leaf processes host, which score for them while they do for nobody else, or this one, on a leaf of
    their own: no request waits for its turn behind them. Nothing is read and no model opened before a request of a
    route that has some."""
    leaf, counts, guard = root.leaf, ShadowMetrics(registry), None
    if isinstance(leaf, LocalLeaf):
        leaf = _local(store_uri, settings, HostMetrics(registry, "pymk_shadow_leaf"))
        guard = ShadowGuard(store_uri, counts.stopped)
    elif isinstance(leaf, LeafFleet):
        leaf = open_fleet(settings, leaf.counts, spare=True)
    return Shadows(store_uri, settings.shadows, leaf, root.catalog.spec, counts, guard)


def one_by_one(store_uri: str, settings: Settings, root: Root, registry: CollectorRegistry, time_s: float) -> Root:
    """The same for requests that nobody waits for: on leaf processes, or on a leaf of their own, so that no request of
    now waits for its turn behind them. time_s: that a request has, before which no call of it hangs."""
    if not isinstance(root.leaf, LocalLeaf):
        return root.one_by_one(InParts(root.leaf, root.catalog.spec))
    patient = settings.leaves.model_copy(update={"timeout_ms": time_s * 1e3})
    own = settings.model_copy(update={"leaves": patient})
    return root.one_by_one(_local(store_uri, own, HostMetrics(registry, "pymk_later_leaf")))


def _local(store_uri: str, settings: Settings, counts: HostMetrics) -> LocalLeaf:
    ladder = settings.ladder

    def breaker(name: str) -> Breaker:
        return Breaker(name, ladder.breaker_failures, ladder.breaker_wait_s)

    return LocalLeaf(store_uri, settings.leaves, counts, breaker)
