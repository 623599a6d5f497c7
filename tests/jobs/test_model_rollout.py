"""From a pushed model to a canary, to stable and back, as an operator types it; and what each refusal says."""

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost as xgb

from infra.audit import deeds
from infra.errors import GateRefused, NotFound, PymkError, UsageError
from infra.model_golden import Golden
from infra.model_routes import LOOKUP, Canary, ModelRef, Route, RouteStore
from infra.models import Registry
from infra.store import ObjectStore, open_store
from jobs.gates import Finding
from jobs.model_checking import check_apart
from jobs.model_rollout import Promotion, RouteChange, change_route, promote, push_model, roll_back
from tests.suites.command import pymk, pymk_json
from tests.suites.model_folders import columns_of, small_spec, write_folder


def folder_of(at: Path, version: str = "1", off: float = 0.0, **changes: Any) -> Path:
    """A model of trees with a golden batch of its own scores, or scores that are `off`."""
    spec = small_spec(version=version, **changes)
    columns = columns_of(spec)
    x = np.column_stack(list(columns.values()))
    booster = xgb.train({"max_depth": 2, "nthread": 1, "seed": 1}, xgb.DMatrix(x, x[:, 0] * int(version)), 3)
    golden = Golden(columns, booster.predict(xgb.DMatrix(x)) + np.float32(off))
    return write_folder(at, spec, lambda weights: booster.save_model(weights / "model.json"), golden)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "s3":
        return open_store(f"s3://{request.getfixturevalue('s3_bucket')}/rollout", writable=True)
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def two(store: ObjectStore, tmp_path: Path) -> ObjectStore:
    """A store with small@1 and small@2."""
    for version in ("1", "2"):
        push_model(store, folder_of(tmp_path / version, version))
    return store


def route_of(store: ObjectStore) -> Route:
    return RouteStore(store).read().of(LOOKUP).route


def refs(*texts: str) -> tuple[ModelRef, ...]:
    return tuple(ModelRef.parse(text) for text in texts)


def test_a_model_goes_from_canary_to_stable_and_back(two: ObjectStore) -> None:
    one, other = refs("small@1", "small@2")
    change_route(two, LOOKUP, RouteChange(stable="small@1"))
    change_route(two, LOOKUP, RouteChange(canary="small@2", share=0.05))
    change_route(two, LOOKUP, RouteChange(share=0.5))
    assert route_of(two) == Route(stable=one, canary=Canary(model=other, share=0.5))
    surface, findings = promote(two, LOOKUP, reason="better")
    assert (surface.route, findings) == (Route(stable=other), [])
    back = roll_back(two, LOOKUP, "worse after all")
    assert back.route == Route(stable=one), "without whom it was rolled back from"
    assert [(deed.action, deed.reason, deed.done) for deed in deeds(two)][-2:] == [
        ("model-promote", "better", True),
        ("model-rollback", "worse after all", True),
    ]


def test_parts_of_a_route_that_are_not_named_stay(two: ObjectStore) -> None:
    one, other = refs("small@1", "small@2")
    change_route(two, LOOKUP, RouteChange(canary="small@2", share=0.1, sticky="client", shadows=["small@1"]))
    change_route(two, LOOKUP, RouteChange(canary="small@2", salt="s"))
    canary = Canary(model=other, share=0.1, sticky="client", salt="s")
    assert route_of(two) == Route(canary=canary, shadows=(one,))
    change_route(two, LOOKUP, RouteChange(canary="none"))
    assert route_of(two) == Route(shadows=(one,))
    change_route(two, LOOKUP, RouteChange(shadows=["none"]))
    change_route(two, LOOKUP, RouteChange(stable="small@1"))
    change_route(two, LOOKUP, RouteChange(stable="release"))
    assert route_of(two) == Route()


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (RouteChange(stable="small@9"), NotFound, "no model small of version 9"),
        (RouteChange(stable="small"), UsageError, "names no version"),
        (RouteChange(canary="small@2"), UsageError, "without a share"),
        (RouteChange(share=0.1), UsageError, "there is no canary"),
        (RouteChange(canary="none", share=0.1), UsageError, "--share without a canary"),
        (RouteChange(canary="small@2", share=0.1, sticky="moon"), UsageError, "--sticky moon"),
        (RouteChange(canary="small@2", share=2), UsageError, "--share 2"),
        (RouteChange(shadows=["../x@1"]), UsageError, "not a valid name of a model"),
    ],
)
def test_a_route_that_cannot_be_is_refused_and_changes_nothing(
    change: RouteChange, error: type[Exception], said: str, tmp_path: Path
) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    push_model(store, folder_of(tmp_path / "2", "2"))
    with pytest.raises(error, match=said):
        change_route(store, LOOKUP, change)
    assert (store.exists("routes.json"), deeds(store)) == (False, [])


def test_what_ranks_the_lookups_lists_is_no_model_of_lists(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    push_model(store, folder_of(tmp_path / "2", "2", unit="list"))
    with pytest.raises(UsageError, match="small@2: scores lists, recommendations is a model of rows"):
        change_route(store, LOOKUP, RouteChange(canary="small@2", share=0.1))
    with pytest.raises(UsageError, match="small@2: scores lists, a shadow is a model of rows"):
        change_route(store, "page", RouteChange(shadows=["small@2"]))
    assert change_route(store, "page", RouteChange(stable="small@2")).route.stable == ModelRef.parse("small@2")


def test_a_promotion_is_refused_by_its_gates_and_force_passes_all_but_integrity(
    two: ObjectStore, tmp_path: Path
) -> None:
    change_route(two, LOOKUP, RouteChange(canary="small@2", share=0.1))
    before = route_of(two)

    def fewer_accepted(promotion: Promotion) -> Iterator[Finding]:
        assert promotion.canary.model == refs("small@2")[0]
        yield Finding("outcomes", "accepted 3 % less often", True)

    def unsound(promotion: Promotion) -> Iterator[Finding]:
        yield Finding("integrity", "scores are NaN", True)

    with pytest.raises(GateRefused, match="outcomes: accepted 3 % less often"):
        promote(two, LOOKUP, gates=[fewer_accepted])
    for force in (False, True):
        with pytest.raises(GateRefused, match="integrity: scores are NaN"):
            promote(two, LOOKUP, force=force, gates=[fewer_accepted, unsound])
    assert route_of(two) == before
    surface, findings = promote(two, LOOKUP, force=True, gates=[fewer_accepted])
    assert (surface.route.stable, [one.gate for one in findings]) == (refs("small@2")[0], ["outcomes"])


def test_a_canary_whose_files_were_altered_is_not_promoted(two: ObjectStore) -> None:
    change_route(two, LOOKUP, RouteChange(canary="small@2", share=0.1))
    model = Registry(two).get("small", "2")
    two.put(f"{model.prefix}/{model.folder}/card.md", b"other")
    with pytest.raises(Exception, match=r"card\.md has 5 bytes"):
        promote(two, LOOKUP)


def test_a_route_does_not_go_back_to_a_model_that_is_gone(two: ObjectStore) -> None:
    for model in ("small@1", "small@2"):
        change_route(two, LOOKUP, RouteChange(stable=model))
    Registry(two).remove("small", "1")
    with pytest.raises(NotFound, match="no model small of version 1"):
        roll_back(two, LOOKUP)
    assert route_of(two) == Route(stable=refs("small@2")[0])


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"off": 1.0}, 3, "of the golden batch scores"),
        ({"kind": "oracle"}, 2, "no such kind of model"),
    ],
)
def test_a_refused_push_says_why(changes: dict[str, Any], code: int, said: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a", **changes)
    (tmp_path / "store").mkdir()
    error = pymk_json("model", "push", str(folder), f"--store={tmp_path / 'store'}", code=code)["error"]
    assert said in error["what"]
    assert pymk_json("model", "list", f"--store={tmp_path / 'store'}") == {"models": []}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.kill(os.getpid(), 11)", r"opening it ended the process \(SIGSEGV\)"),
        ("while True: pass", "did not score its golden batch within 0.5 s"),
        ("raise SystemExit('a library is missing')", "could not be checked: a library is missing"),
    ],
)
def test_weights_that_end_or_hang_their_process_are_refused(
    code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.model_checking.sys.executable", str(fake_python(tmp_path / "python", code)))
    folder = folder_of(tmp_path / "a")
    with pytest.raises(PymkError, match=said):
        check_apart(folder, small_spec(), most_s=0.5 if code.startswith("while") else 60)


def fake_python(path: Path, code: str) -> Path:
    """An interpreter that runs this, whatever it is asked to."""
    path.write_text(f"#!/bin/sh\nexec {sys.executable} -c {shlex.quote(code)}\n")
    path.chmod(0o755)
    return path


def test_the_commands_do_as_they_say(tmp_path: Path) -> None:
    store = f"--store={tmp_path / 'store'}"
    missing = pymk_json("model", "push", str(folder_of(tmp_path / "a")), store, code=1)["error"]["what"]
    assert missing.endswith("no such folder")
    (tmp_path / "store").mkdir()
    pushed = pymk_json("model", "push", str(tmp_path / "a"), store)
    assert (pushed["model"], pushed["checks"]["rows"], pushed["routed"]) == ("small@1", 40, [])
    assert "small@2: 40 golden rows" in pymk("model", "push", str(folder_of(tmp_path / "b", "2")), store).stdout
    assert pymk_json("model", "route", store)["stable"] == "release"

    routed = pymk_json("model", "route", store, "--canary=small@2", "--share=0.05", "--shadow=small@1", "--reason=try")
    assert routed["canary"] == {"model": "small@2", "share": 0.05, "sticky": "user", "salt": ""}
    listed = {one["model"]: one["routed"] for one in pymk_json("model", "list", store)["models"]}
    assert listed == {"small@1": ["recommendations: shadow"], "small@2": ["recommendations: canary 5.0%"]}

    shown = pymk_json("model", "show", "small", store)
    assert (shown["model"], shown["spec"]["inputs"][0]["default"], shown["card"][:7]) == ("small@2", 0.5, "# Small")
    assert json.loads(json.dumps(shown)) == shown
    assert "needs 1 cores" in pymk("model", "show", "small@1", store).stdout

    promoted = pymk_json("model", "promote", store)
    assert (promoted["stable"], promoted["canary"], promoted["outcomes"]) == ("small@2", None, None)
    assert promoted["warnings"] == ["outcomes: nobody knows what became of whom it showed: no --lake was given"]
    back = pymk_json("model", "rollback", store, "--reason=worse")
    assert (back["stable"], back["canary"], back["stopped"][0]["model"]) == ("release", None, "small@2")
    assert pymk_json("model", "route", store, "--stable=small@1")["stable"] == "small@1"
    assert pymk_json("model", "rollback", store)["stable"] == "release"
    for share in ("150", "5%", "nan"):
        error = pymk_json("model", "route", store, "--canary=small@1", f"--share={share}", code=2)["error"]
        assert error["what"] == f"--share {share}: is not a share from 0 to 1"
    assert "no canary to promote" in pymk_json("model", "promote", "other", store, code=1)["error"]["what"]
    assert "no model none" in pymk_json("model", "show", "none", store, code=1)["error"]["what"]
    assert "stable the ranker of the release" in pymk("model", "route", store).stdout


def test_a_mistyped_surface_is_told_of(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    push_model(store, folder_of(tmp_path / "1"))
    at = f"--store={store.uri}"
    unknown = pymk_json("model", "route", "feed", at, code=1)["error"]
    assert (unknown["what"], unknown["fix"]) == ("feed: nothing is routed there", "There are: recommendations.")
    assert "warning: feed: nothing is routed there." in pymk("model", "route", "feed", at, "--canary=none").stderr
    change = ("model", "route", "recomendations", at, "--stable=small@1")
    said = "recomendations: is a new surface. There are: recommendations. Nearest: recommendations."
    assert said in pymk(*change).stderr
    assert "is a new surface" not in pymk(*change).stderr
