"""What a shadow that scores every request costs those who are answered, and what becomes of it under overload.

    python -m benchmarks.shadows [--users 20000] [--people 200] [--seconds 5] [--pairs 10] [--load 0.3] [--cores 1]
        [--folder FOLDER]

One worker; POST /v1/score for a surface whose stable model and shadow are boosted trees of the nightly ranker's size
on all of its columns, for random people, in an open loop (Poisson) at a share of what a closed loop without a shadow
reaches. Runs with and without the shadow alternate, and which of a pair is first; the figure is the median over pairs
of p99 with, by p99 without. Scored: share of the requests of the runs with a shadow that it scored; the rest was
dropped. Then more and more is asked: shadows go first. The client has a core of its own, the server the first
`--cores` others.
"""

import argparse
import os
import statistics
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import orjson
import xgboost as xgb
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.lookup import print_machine
from benchmarks.open_loop import AT_ONCE, OpenLoop, Request, Seen, post
from benchmarks.servers import Server, served
from benchmarks.serving_rows import user_ids
from benchmarks.serving_site import Site, prepare
from infra.errors import Conflict
from infra.model_golden import Golden, write_golden
from infra.model_routes import ModelRef, Route, RouteStore, routed
from infra.model_spec import WEIGHTS, InputSpec, ModelSpec
from infra.models import Registry
from infra.store import ObjectStore, open_store
from jobs.serve import APP
from lookup_api.ranking.features import FEATURES

SURFACE = "feed"
TREES, DEPTH, LEARN_ROWS, SEED = 300, 4, 10_000, 17
CONNECTIONS = 64
CLOSED = 1
"""More would be refused in turns by the load that they make, and so tell of less than the worker answers."""
FOLLOWED_S = 1.5
"""After a change of the route, which workers look at each second."""
RISING = (0.3, 0.6, 0.9, 1.5, 3.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--load", type=float, default=0.3)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where tables stay; a temporary one if not given")
    args = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory() as scratch:
        site = prepare((args.folder or Path(scratch)) / f"users-{args.users}", args.users)
        store = open_store(site.uri, writable=True)
        stable, shadow = push(store, "1"), push(store, "2")
        known = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, known[-1:])
        environment = site.environment(l1=False) | {"PYMK_SHADOWS__MIB_PER_HOUR": "1000000"}
        with served(APP, environment, core=set(known[: args.cores])) as server:
            run = Runner(server, site, asker(site, args.people), stable, shadow)
            for shadowed in (True, False):  # once before anything is measured: models are opened on first use
                closed = run(shadowed, AT_ONCE, args.seconds, CLOSED)[0].good_per_s
            print(f"closed loop of one connection without a shadow: {closed:,.0f} answers a second")
            pairs(run, args.pairs, args.load * closed, args.seconds)
            overload(run, closed, args.seconds)


def push(store: ObjectStore, version: str) -> ModelRef:
    """Boosted trees on all columns of the ranker."""
    draw = np.random.default_rng([SEED, int(version)])
    spec = ModelSpec(
        name="shadow-bench", version=version, kind="xgboost", objective="befriend",
        inputs=tuple(InputSpec(name=name) for name in FEATURES),
    )  # fmt: skip
    x = draw.standard_normal((LEARN_ROWS, len(FEATURES)), np.float32)
    learnt = xgb.DMatrix(x, x[:, :5].sum(axis=1) + draw.standard_normal(LEARN_ROWS))
    ref = ModelRef(name=spec.name, version=version)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        (folder / WEIGHTS).mkdir(parents=True)
        booster = xgb.train({"max_depth": DEPTH, "nthread": 1, "tree_method": "hist"}, learnt, TREES)
        booster.save_model(folder / WEIGHTS / "model.ubj")
        (folder / "model.toml").write_text(spec.to_toml())
        (folder / "card.md").write_text("# Bench\n")
        write_golden(folder, spec, Golden(dict(zip(FEATURES, x[:10].T, strict=True)), booster.predict(learnt)[:10]))
        with suppress(Conflict):  # of an earlier run in this folder
            Registry(store).push(folder, lambda folder, spec: {}, datetime.now(UTC), "bench")
    return ref


def asker(site: Site, people: int) -> Callable[[], Request]:
    """Random people for random users, without end."""
    draw, ids = np.random.default_rng(SEED), user_ids(site.users)
    ready: list[bytes] = []

    def ask() -> Request:
        if not ready:
            for user in draw.choice(ids, 512).tolist():
                named = [str(one) for one in draw.choice(ids, people, replace=False).tolist()]
                body = orjson.dumps({"user_id": str(user), "candidate_ids": named, "models": [SURFACE]})
                ready.append(post("/v1/score", body, site.key))
        return Request(ready.pop())

    for _ in range(512):
        ask()
    return ask


class Runner:
    """Asks with and without a shadow."""

    def __init__(
        self, server: Server, site: Site, asks: Callable[[], Request], stable: ModelRef, shadow: ModelRef
    ) -> None:
        self._server, self._key, self._asks = server, site.key, asks
        self._store = open_store(site.uri, writable=True)
        self._stable, self._shadow = stable, shadow

    def __call__(
        self, shadowed: bool, rate: float, seconds: float, connections: int = CONNECTIONS
    ) -> tuple[Seen, Counter[str]]:
        """What came of it, and what became of the shadow's requests."""
        route = Route(stable=self._stable, shadows=(self._shadow,) if shadowed else ())
        RouteStore(self._store).change(SURFACE, routed(route, force=True), "2026-01-01T00:00:00Z", "bench")
        loop = OpenLoop(self._server.url, connections)
        loop.run(20, FOLLOWED_S, self._asks, lambda answer: None)
        before, seen = self._outcomes(), Seen(seconds=seconds)
        loop.run(rate, seconds, self._asks, seen.add)
        seen.busy = loop.busy
        loop.close()
        time.sleep(0.5)  # for what waits to be scored
        return seen, self._outcomes() - before

    def _outcomes(self) -> Counter[str]:
        known = urllib.request.Request(f"{self._server.url}/metrics", headers={"X-Api-Key": self._key})
        with urllib.request.urlopen(known) as answer:
            text = answer.read().decode()
        return Counter(
            {
                sample.labels["outcome"]: int(sample.value)
                for family in text_string_to_metric_families(text)
                for sample in family.samples
                if sample.name == "pymk_shadow_requests_total"
            }
        )


def pairs(run: Runner, number: int, rate: float, seconds: float) -> None:
    print(f"\n{rate:,.0f} requests a second for {seconds:g} s, ms")
    print(
        f"{'pair':>6} {'p50':>8} {'shadowed':>8} {'p99':>8} {'shadowed':>8} {'by':>6} {'scored':>8} {'client busy':>12}"
    )
    ratios = []
    for at in range(number):
        found = {}
        for shadowed in (bool(at % 2), not at % 2):
            found[shadowed] = run(shadowed, rate, seconds)
        without, (seen, outcomes) = found[False][0], found[True]
        plain, with_it = without.latency(), seen.latency()
        ratios.append(with_it["p99"] / plain["p99"])
        scored = outcomes["answered"] / max(outcomes.total(), 1)
        print(
            f"{at + 1:>6} {plain['p50']:8.2f} {with_it['p50']:8.2f} {plain['p99']:8.2f} {with_it['p99']:8.2f} "
            f"{ratios[-1]:6.2f} {scored:8.1%} {max(without.busy, seen.busy):12.2f}",
            flush=True,
        )
    print(f"median of p99 with a shadow by without: {statistics.median(ratios):.3f}")


def overload(run: Runner, closed: float, seconds: float) -> None:
    print("\nmore and more, by share of the closed loop")
    print(f"{'asked':>8} {'goodput':>8} {'shadowed':>8} {'p99 ms':>8} {'shadowed':>8}   of the shadow's requests")
    for share in RISING:
        (without, _), (seen, outcomes) = (run(shadowed, share * closed, seconds) for shadowed in (False, True))
        told = ", ".join(f"{number / outcomes.total():.1%} {name}" for name, number in sorted(outcomes.items()))
        print(
            f"{share:8.1f} {without.good_per_s:8,.0f} {seen.good_per_s:8,.0f} {without.latency().get('p99', 0):8.1f} "
            f"{seen.latency().get('p99', 0):8.1f}   {told}",
            flush=True,
        )


if __name__ == "__main__":
    main()
