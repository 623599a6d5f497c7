"""The Flask app: `lookup_api.app:create_app` is what the server imports, once in every worker process."""

import gc
import os
from dataclasses import replace
from ipaddress import ip_address

from infra import settings as settings_module
from infra.errors import UsageError
from infra.key_ring import KeyRing
from infra.live_facts import facts_uri
from infra.queued_work import Bounds, open_queue
from infra.redis_connection import names_redis
from infra.request_threads import threads_of
from infra.settings import Settings
from lookup_api import logs, pages, problems
from lookup_api.bodies import Bodies
from lookup_api.door import Door
from lookup_api.end_watch import EndWatch
from lookup_api.erasure_watch import ErasureWatch
from lookup_api.facts_access import FactsAccess
from lookup_api.later_scores import TIME_S, LaterScores
from lookup_api.lean_flask import LeanFlask
from lookup_api.load import Load
from lookup_api.lookup import Lookup
from lookup_api.metrics import Metrics
from lookup_api.model_routes import ModelRoutes
from lookup_api.parameters import MAX_LIMIT
from lookup_api.ranking.pages import shown
from lookup_api.ranking.rules import pick
from lookup_api.rate_limits import KEY, USER, RateLimit
from lookup_api.release_list import ReleaseList
from lookup_api.release_source import source_of
from lookup_api.release_watch import ReleaseWatch
from lookup_api.request_ids import RequestIds
from lookup_api.root.drift import Drift
from lookup_api.root.opened import one_by_one
from lookup_api.root.references import References
from lookup_api.routes import Limits, Routes
from lookup_api.score_routes import ScoreRoutes
from lookup_api.scores import Scoring
from lookup_api.shared_rates import SharedRates
from lookup_api.shedding import Queue
from lookup_api.spare_threads import SpareThreads
from lookup_api.tables_lock import TablesLock
from lookup_api.tracing import open_tracing

STORE_VARIABLE, DRAIN_VARIABLE = "PYMK_STORE", "PYMK_DRAIN_FILE"
WARM_UP, WARM_PATHS = 20, ("/healthz", "/readyz", "/openapi.json")
"""The interpreter fits code to what it does after some runs of it."""


class Parts:
    """What one app is made of. What runs in the background is started and stopped here."""

    def __init__(self, store_uri: str, settings: Settings) -> None:
        self.settings, self.store_uri = settings, store_uri
        api = settings.api
        facts_at = facts_uri(settings, store_uri)
        self.metrics = Metrics()
        source = source_of(store_uri, api.tables, api.tables_timeout_ms / 1e3, api.poll_s)
        self.watch = ReleaseWatch(store_uri, api.poll_s, self.metrics, ladder=settings.ladder, source=source)
        self.tables_lock = TablesLock(self.watch.take, self.metrics.tables_locked) if api.lock_tables else None
        self.lookup = Lookup.of(settings, self.metrics, store_uri)
        self.facts = FactsAccess(facts_at, settings, self.metrics)
        self.erasures = ErasureWatch(store_uri, self.facts, api.poll_s, self.metrics)
        self.keys = KeyRing(store_uri, api.poll_s)
        self.tracing = open_tracing()
        self.spare = SpareThreads.of_environment(is_draining)
        self.end_watch = EndWatch(is_draining)
        self.request_ids = RequestIds()
        self.load = Load(threads_of(settings), settings.ladder.fewer_at, settings.ladder.no_live_at)
        self.load.told = self.lookup.counts.busy
        self.bodies = Bodies(self.spare, self.load, self.keys, api.retry_after_s, api.max_body_kib << 10)
        self.key_limit = RateLimit(KEY, api.key_per_s) if api.key_per_s else None
        self.user_limit = RateLimit(USER, api.user_per_s) if api.user_per_s else None
        limits = [limit for limit in (self.key_limit, self.user_limit) if limit is not None]
        redis = facts_at if names_redis(facts_at) else settings.ladder.l2
        self.shared_rates = (
            SharedRates(redis, limits, settings.events.redis_timeout_ms / 1e3) if redis and limits else None
        )
        assert self.lookup.root is not None
        self.shadows = self.lookup.shadows
        assert self.shadows is not None
        self.shadows.load, self.shadows.is_ending = self.load, is_draining
        self.scoring = Scoring(self.lookup.root, self.lookup.counts, settings.ladder, api.retry_after_s, self.shadows)
        assert self.lookup.asked is not None
        self.drift = Drift(settings.models, self.lookup.asked, References(store_uri, self.watch.hold))
        self.later = self._later(facts_at, settings) if api.score_queue else None

    def _later(self, facts_at: str, settings: Settings) -> LaterScores:
        api = settings.api
        bounds = Bounds(api.score_queue, api.score_queue_mib << 20, api.score_life_s)
        queue = open_queue(facts_at, bounds, settings.events.redis_timeout_ms / 1e3)
        root = one_by_one(self.store_uri, settings, self.scoring.root, self.metrics.registry, TIME_S)
        scoring = replace(self.scoring, root=root)
        return LaterScores(queue, scoring, self.watch, self.facts.of, self.load, api.score_life_s, is_draining)

    def start(self) -> None:
        self.end_watch.start()
        self.keys.start()
        if self.shared_rates:
            self.shared_rates.start()
        self.watch.start()
        if self.tables_lock:
            self.tables_lock.start()
        if self.lookup.models:
            self.lookup.models.follow_lists(self.watch.hold)
            self.lookup.models.start()
        self.drift.start()
        self.erasures.start()
        if self.later:
            self.later.start()

    def stop(self) -> None:
        if self.later:
            self.later.stop()
        if self.tables_lock:
            self.tables_lock.stop()
        self.watch.stop()
        if self.lookup.models:
            self.lookup.models.stop()
        self.drift.stop()
        self.spare.stop()
        self.keys.stop()
        if self.shared_rates:
            self.shared_rates.stop()
        self.erasures.stop()
        assert self.shadows is not None
        self.shadows.stop()
        self.scoring.root.close()
        self.facts.close()
        if self.tracing:
            self.tracing.stop()
        self.end_watch.stop()

    def routes(self) -> Routes:
        api = self.settings.api
        return Routes(
            self.watch,
            self.lookup,
            self.facts,
            self.metrics,
            self.load,
            Limits(
                self.settings.events.batch,
                api.gzip_bytes,
                api.retry_after_s,
                self.settings.ladder.deadline_ms / 1e3,
            ),
            self.request_ids,
            is_draining,
            ReleaseList(self.store_uri),
            self.tracing,
            self.bodies,
        )

    def score_routes(self) -> ScoreRoutes:
        api = self.settings.api
        return ScoreRoutes(
            self.watch,
            self.scoring,
            self.later,
            self.facts,
            self.metrics,
            self.load,
            self.request_ids,
            self.bodies,
            self.user_limit,
            api.score_candidates,
            self.settings.ladder.deadline_ms / 1e3,
            api.retry_after_s,
        )

    def model_routes(self) -> ModelRoutes:
        retry_after_s = self.settings.api.retry_after_s
        return ModelRoutes(self.scoring.root.catalog, self.metrics, self.request_ids, retry_after_s)

    def door(self, app: LeanFlask) -> Door:
        api = self.settings.api
        return Door(
            app=app.wsgi_app,
            keys=self.keys,
            loopback=is_loopback(api.host),
            key_limit=self.key_limit,
            user_limit=self.user_limit,
            max_body_bytes=api.max_body_kib << 10,
            queue=Queue(api.queue_ms / 1e3),
            spare=self.spare,
            load=self.load,
            retry_after_s=api.retry_after_s,
            metrics=self.metrics,
            request_ids=self.request_ids,
            tracing=self.tracing,
            log_all=api.log_requests == "all",
        )


def create_app(store_uri: str | None = None, settings: Settings | None = None) -> LeanFlask:
    """An app that serves the current release of a store and follows it.

    store_uri: by default the environment's PYMK_STORE. settings: by default those of the environment.
    Its parts are `app.extensions["pymk"]`; stop them when the app is done with.
    """
    uri = store_uri or os.environ.get(STORE_VARIABLE)
    if not uri:
        raise UsageError(f"{STORE_VARIABLE} is not set", "Use `pymk serve --store URI`, or set it to the store's URI.")
    known = settings or settings_module.load()[0]
    logs.configure(known.api.log_lines, replace=store_uri is None)
    parts = Parts(uri, known)
    app = LeanFlask("lookup_api")
    app.config["MAX_CONTENT_LENGTH"] = (known.api.max_body_kib << 10) + 1  # one more tells which are longer
    problems.register(app, parts.metrics.failed, parts.request_ids, known.api.retry_after_s)
    parts.routes().register(app)
    parts.score_routes().register(app)
    parts.model_routes().register(app)
    pages.register(app, known.events.batch, known.api.score_candidates, parts.request_ids)
    app.extensions |= {"pymk": parts, "release_watch": parts.watch}
    parts.start()
    app.wsgi_app = parts.door(app)  # type: ignore[method-assign]
    if store_uri is None:
        warm_up(app, parts.watch, parts.lookup)
        forget_variables()
        settle_collector()
    return app


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is of this machine alone."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def is_draining() -> bool:
    """Whether the server was told to stop: it then makes a file, whose name its workers know."""
    name = os.environ.get(DRAIN_VARIABLE)
    return name is not None and os.path.exists(name)


def warm_up(app: LeanFlask, watch: ReleaseWatch, lookup: Lookup) -> None:
    """Has the code of an answer run before the first one is asked for; nothing of it is counted."""
    paths: tuple[str, ...] = WARM_PATHS
    with watch.hold() as release:
        if release is None:
            paths = ("/healthz",)
        if release is not None:
            for _ in range(WARM_UP):
                shown(release.popular, pick(release.popular, MAX_LIMIT, (), ()))
            lookup.rehearse(release)
    client = app.test_client()
    for path in paths:
        for _ in range(WARM_UP):
            client.get(path)


def forget_variables() -> None:
    """Takes the settings out of a worker's environment, which the server copies for every request."""
    for name in [name for name in os.environ if name.startswith(settings_module.ENV_PREFIX) and "__" in name]:
        del os.environ[name]


def settle_collector() -> None:
    """Spares the garbage collector of a worker what lives as long as the worker; an answer leaves no cycles behind."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
