"""The Flask app: `lookup_api.app:create_app` is what the server imports, once in every worker process."""

import gc
import logging
import os

from flask import Flask

from infra import settings as settings_module
from infra.errors import UsageError
from infra.settings import Settings
from lookup_api import problems, routes
from lookup_api.lookup import Lookup
from lookup_api.metrics import Metrics
from lookup_api.ranking.rules import caps_of
from lookup_api.release_watch import ReleaseWatch

STORE_VARIABLE = "PYMK_STORE"


def create_app(store_uri: str | None = None, settings: Settings | None = None) -> Flask:
    """An app that serves the current release of a store and follows it.

    store_uri: by default the environment's PYMK_STORE. settings: by default those of the environment.
    The watch is `app.extensions["release_watch"]`; stop it when the app is done with.
    """
    uri = store_uri or os.environ.get(STORE_VARIABLE)
    if not uri:
        raise UsageError(f"{STORE_VARIABLE} is not set", "Use `pymk serve --store URI`, or set it to the store's URI.")
    known = settings or settings_module.load()[0]
    logging.getLogger("lookup_api").setLevel(logging.INFO)
    logging.basicConfig(format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")
    metrics = Metrics()
    watch = ReleaseWatch(uri, known.api.poll_s, metrics)
    app = Flask("lookup_api", static_folder=None)
    app.url_map.merge_slashes = False
    problems.register(app, metrics.failed)
    routes.register(app, watch, Lookup(caps_of(known.rules), metrics), metrics, known.api.retry_after_s)
    app.extensions["release_watch"] = watch
    watch.start()
    if store_uri is None:
        settle_collector()
    return app


def settle_collector() -> None:
    """Spares the garbage collector of a worker what lives as long as the worker; an answer leaves no cycles behind."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
