"""A fleet's site with one fault at a time, and with each pair: every list is answered 200 with its rung, nobody
excluded is shown, events that cannot be stored are answered 503, and all is well again by itself afterwards."""

import itertools
from collections.abc import Iterator, Sequence

import pytest

from infra.settings import LadderSettings
from lookup_api.ranking.ranker import Float32
from lookup_api.ranking.scoring import RankingModel
from lookup_api.served_release import ServedRelease
from tests.lookup_api.faults.callers import Callers
from tests.lookup_api.faults.faults import BY_NAME, FAULTS, Fault, clashes
from tests.lookup_api.faults.site import PATIENT, Site
from tests.suites.live_store import guarded_graph, live_artifacts

ENVIRONMENT = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "PYMK_CACHE_DIR")
PAIRS = [pair for pair in itertools.combinations(FAULTS, 2) if not clashes(pair[0].name, pair[1].name)]


@pytest.fixture(scope="module")
def callers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callers]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ENVIRONMENT:
            patch.setenv(name, "")
        folder, graph = tmp_path_factory.mktemp("site"), guarded_graph()
        made = live_artifacts(tmp_path_factory.mktemp("night"), graph)
        site = Site(folder, graph, made, PATIENT)
        try:
            found = Callers(site.start())
            found.until_as_expected(())
            yield found
        finally:
            site.stop()


def suffer(callers: Callers, faults: Sequence[Fault]) -> None:
    """Lets faults begin, one after the other, and end; every answer on the way is judged."""
    site, names = callers.site, [fault.name for fault in faults]
    for fault in faults:
        fault.begin(site)
    if any(fault.restarts for fault in faults):
        site.restart_workers()
    callers.until_as_expected(names)
    callers.stay_as_expected(names)
    for fault in reversed(faults):
        fault.end(site)
    callers.until_as_expected(())


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_one_fault(callers: Callers, fault: Fault) -> None:
    suffer(callers, [fault])


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: " + ".join(fault.name for fault in pair))
def test_two_faults_at_once(callers: Callers, pair: tuple[Fault, Fault]) -> None:
    suffer(callers, pair)


@pytest.mark.parametrize("name", ["S3 gone", pytest.param("S3 hung", marks=pytest.mark.slow)])
def test_workers_that_are_restarted_while_the_store_is_away_serve_what_they_served(callers: Callers, name: str) -> None:
    BY_NAME[name].begin(callers.site)
    callers.site.restart_workers()
    callers.until_as_expected([name])
    BY_NAME[name].end(callers.site)
    callers.until_as_expected(())


def test_a_release_whose_ranker_raises_when_it_is_warmed_up_is_served_without_it(
    callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(model: RankingModel, matrix: Float32) -> Float32:
        raise RuntimeError("of the library that runs it")

    monkeypatch.setattr(RankingModel, "score", raises)
    opened = ServedRelease.open(callers.site.store, callers.site.newest, LadderSettings())
    assert opened.live is not None
    assert opened.live.model is None
    monkeypatch.undo()
    opened.give_back()
