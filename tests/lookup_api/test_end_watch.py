"""What a process has in hand when it is told to end is nobody's fault."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from onnx import TensorProto, helper

from benchmarks.servers import wait_until_ready
from benchmarks.serving_rows import FIRST_ID, STEP
from infra.model_spec import InputSpec
from infra.models import Registry
from infra.store import ObjectStore
from lookup_api.model_marks import Marks, marks_of
from tests.infra.test_models import NOW
from tests.lookup_api.ranking.test_scorers import onnx_weights
from tests.lookup_api.test_surface_canaries import HOME, QUIET, USER, catalog_of, push, route, stopped
from tests.suites.canaries import until_watched
from tests.suites.model_folders import small_spec, write_folder
from tests.suites.ports import free_port
from tests.suites.served_store import publish_day

ROOT = Path(__file__).parents[2]
FEW, MANY = 2, 60
"""People: a canary scores few at once, and many never."""


def push_endless(store: ObjectStore, folder: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Abs", ["before"], ["after"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("Size", ["factors"], ["rows"]),
        helper.make_node("Sub", ["rows", "few"], ["more"]),
        helper.make_node("Max", ["more", "none"], ["over"]),
        helper.make_node("Mul", ["over", "ages"], ["turns"]),
        helper.make_node("Loop", ["turns", "", "factors"], ["score"], body=body),
    ]
    numbers = {"few": np.int64(32), "none": np.int64(0), "ages": np.int64(1 << 40)}
    weights = onnx_weights([("factors", TensorProto.FLOAT, ["n"])], nodes, **numbers)
    spec = small_spec(name="endless", version="1", kind="onnx", inputs=(InputSpec(name="factors", default=3),))
    made = write_folder(folder, spec, weights)
    Registry(store).push(made, lambda folder, spec: {}, NOW, "a")


def posted(url: str, people: int) -> Any:
    ids = [str(FIRST_ID + STEP * (200 + row)) for row in range(people)]
    body = json.dumps({"user_id": USER, "candidate_ids": ids, "models": [HOME]}).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"})) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:  # busy since it started
        return json.load(error)


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_canary_that_scores_by_and_by_when_the_server_ends_stays(
    store: ObjectStore, tmp_path: Path, serve: Callable[..., FlaskClient]
) -> None:
    publish_day(store, 2)
    push(store, tmp_path, "sound")
    push_endless(store, tmp_path / "endless")
    route(store, "endless")
    port, marks = free_port(), marks_of(store.uri, "surfaces")
    command = [sys.executable, "-m", "jobs.cli", "serve", f"--store={store.uri}", f"--port={port}", "--workers=1"]
    command += ["--set=api.drain_s=0", "--set=ladder.deadline_ms=60000"]
    server = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(f"{url}/readyz", server)
        until(lambda: posted(f"{url}/v1/score", FEW).get("models") == {HOME: "endless@1"})
        assert posted(f"{url}/v1/score?async=1", MANY)["status"] == "queued"
        until(lambda: any(path.read_bytes()[0] for path in marks.iterdir()))
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    until_watched(catalog_of(serve(**QUIET)))
    assert stopped(store) is None


def test_marks_tell_of_nothing_once_the_server_is_told_to_stop(
    store: ObjectStore, tmp_path: Path, serve: Callable[..., FlaskClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    marks, stop = Marks(tmp_path / "marks"), tmp_path / "stop"
    monkeypatch.setenv("PYMK_DRAIN_FILE", str(stop))
    parts = serve().application.extensions["pymk"]
    mark = marks.of("small@1")
    [file] = (tmp_path / "marks").iterdir()
    with mark:
        assert file.read_bytes()[0] == 1
        stop.touch()
        until(lambda: file.read_bytes()[0] == 0)
        with mark, marks.of("other@1"):
            assert [path.read_bytes()[0] for path in (tmp_path / "marks").iterdir()] == [0]
    parts.later._thread.join(60)
    assert not parts.later._thread.is_alive()
