"""A leaf in another process scores as one in this process, of the columns that the model names and no others."""

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pyarrow.flight as flight
import pytest
from prometheus_client import CollectorRegistry

from infra.errors import NotFound, PymkError, UsageError
from infra.model_routes import ModelRef
from infra.model_spec import InputSpec
from infra.store import ObjectStore, open_store
from lookup_api.deadline import Deadline, TooLate
from lookup_api.leaves import wire
from lookup_api.leaves.columns import ColumnList
from lookup_api.leaves.leaf_server import LeafServer
from lookup_api.leaves.protocol import LeafAway, LeafBusy, LeafFailed, LeafLate, LeafLost, ModelHangs, Timed
from lookup_api.leaves.remote_leaf import RemoteLeaf
from tests.lookup_api.leaves.test_batches import Held
from tests.lookup_api.leaves.test_local_leaf import LOOKED_UP, looked_up
from tests.lookup_api.ranking.test_scorers import MODELS
from tests.suites.frozen import freeze
from tests.suites.leaf_models import leaf_of, push, soon, trees
from tests.suites.leaf_processes import LeafProcess, leaves, remote_to
from tests.suites.model_folders import columns_of, small_spec

COLUMNS = columns_of(small_spec())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    return open_store(str(tmp_path_factory.mktemp("leaves") / "store"), create=True)


@pytest.fixture(scope="module")
def refs(store: ObjectStore) -> dict[str, ModelRef]:
    """A version of every kind."""
    pushed = {}
    for at, (name, (changes, weights)) in enumerate(MODELS.items()):
        pushed[name] = push(store, str(100 + at), weights, **changes)
    return pushed


@pytest.fixture(scope="module")
def process(store: ObjectStore) -> Iterator[LeafProcess]:
    with leaves(store, 1) as (one,):
        yield one


@contextmanager
def serving(store: ObjectStore, kind: type[LeafServer] = LeafServer, **settings: Any) -> Iterator[LeafServer]:
    """A server in this process."""
    with kind("grpc://127.0.0.1:0", leaf_of(store, **settings), CollectorRegistry()) as server:
        yield server


def test_scores_are_those_of_this_process_to_the_bit(
    store: ObjectStore, refs: dict[str, ModelRef], process: LeafProcess
) -> None:
    here = leaf_of(store, memory_mib=64)
    for lz4 in (False, True):
        there = remote_to(process.address, lz4=lz4)
        for name, ref in refs.items():
            columns = columns_of(small_spec(**MODELS[name][0])) | {"unnamed": np.arange(40) ** 2}
            given = {name: column[::-1][:17] for name, column in columns.items()}
            if "degree" in given:
                given["degree"] = np.arange(17) + 2**40
            np.testing.assert_array_equal(there.score(ref, given, soon()), here.score(ref, given, soon()), name)
            some = dict(list(given.items())[1:])
            np.testing.assert_array_equal(there.score(ref, some, soon()), here.score(ref, some, soon()), name)
        assert there._counts.told["untrimmed missing"] == 0
        there.close()


def test_what_is_sent_is_the_arithmetic_of_the_columns_used(store: ObjectStore, process: LeafProcess) -> None:
    ref = push(store, "200")
    there = remote_to(process.address)
    columns = columns_of(small_spec(), rows=1000) | {f"c{at}": np.ones(1000, np.float32) for at in range(197)}
    there.score(ref, columns, soon())
    told = there._counts.told
    assert 3 * 4000 <= told["sent"] <= 1.05 * 3 * 4000
    assert told["saved"] == 197 * 4000
    assert told["discarded"] == 0


def test_failures_are_told_apart(store: ObjectStore, process: LeafProcess) -> None:
    there = remote_to(process.address)
    ref = push(store, "201", looked_up(), **LOOKED_UP)
    with pytest.raises(NotFound, match="no model small of version 999"):
        there.score(ModelRef(name="small", version="999"), COLUMNS, soon())
    with pytest.raises(UsageError, match="column at is"):
        there.score(ref, {"at": np.zeros((3, 2)), "walk": np.zeros(3)}, soon())
    with pytest.raises(TooLate):
        there.score(ref, {"at": np.arange(3)}, Deadline.after(-1))
    with pytest.raises(LeafFailed, match="small@201") as failed:
        there.score(ref, {"at": np.array([99])}, soon())
    assert not isinstance(failed.value, LeafAway)
    assert there.score(ref, {"at": np.arange(3)}, soon()).tolist() == [0, 1, 2]


def test_what_a_leaf_raises_is_raised_here(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its turn that did not come and a leaf that is busy do not speak against a canary; other failures do."""
    ref = push(store, "210")
    with serving(store) as server:
        there = remote_to(f"127.0.0.1:{server.port}")
        for kind in (*wire.RAISED, ZeroDivisionError):

            def fails(*_: object, kind: type[Exception] = kind) -> None:
                raise kind("here")

            monkeypatch.setattr(server._leaf, "score_inputs", fails)
            with pytest.raises(PymkError, match="here") as raised:
                there.score(ref, COLUMNS, soon())
            assert type(raised.value) is (kind if kind in wire.RAISED else LeafFailed)


@pytest.mark.parametrize(("ms", "told"), [(12.5, 12.5), (1e9, 65_504.0)])
def test_it_tells_how_long_the_models_own_call_took(
    ms: float, told: float, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = push(store, f"21{int(told)}")
    with serving(store) as server:
        monkeypatch.setattr(server._leaf, "score_inputs", lambda *_: Timed(np.ones(40, np.float32), ms))
        timed = remote_to(f"127.0.0.1:{server.port}").timed(ref, COLUMNS, soon())
    assert (timed.scores.tolist(), timed.ms) == ([1] * 40, told)


def test_a_model_that_hangs_is_told_so_and_the_leaf_is_not_ready_meanwhile(store: ObjectStore) -> None:
    ref, other = push(store, "211"), push(store, "212")
    columns = {name: np.abs(column) for name, column in COLUMNS.items()}
    with serving(store) as server:
        there = remote_to(f"127.0.0.1:{server.port}")
        resident = server._leaf.resident(ref, soon())
        resident.scorer = held = Held(spec=resident.spec)
        asking = threading.Thread(target=lambda: there.score(ref, columns, soon()))
        asking.start()
        while not held.calls:
            pass
        assert server.health()["ready"]
        server._leaf._batches._longest_s = 0.0
        health = server.health()
        assert (health["ready"], health["hanging"]) == (False, [str(ref)])
        server._leaf._batches._longest_s = 60.0
        with pytest.raises(ModelHangs):
            there.score(ref, columns, soon())
        assert there.score(other, columns, soon()).shape == (40,)
        held.go_on.set()
        asking.join()


def test_late_answers_open_a_leafs_breaker_only_where_there_was_time_and_it_said_nothing_meanwhile(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, end = push(store, "213"), threading.Event()
    with serving(store) as server:
        there = remote_to(f"127.0.0.1:{server.port}")
        there.score(ref, COLUMNS, soon())
        monkeypatch.setattr(server._leaf, "score_inputs", lambda *_: end.wait(60))

        def ask(seconds: float) -> bool:
            for _ in range(2):  # failures open it
                with pytest.raises(LeafLate):
                    there.score(ref, COLUMNS, Deadline.after(seconds))
            return there.breaker.open

        assert not ask(0.015)
        replied_s, there._replied_s = there._replied_s, float("inf")
        assert not ask(0.1)
        there._replied_s = replied_s
        assert ask(1.0)
        end.set()


def test_who_is_to_be_scored_beside_nobody_says_so(store: ObjectStore) -> None:
    ref = push(store, "214")
    with serving(store) as server:
        there = remote_to(f"127.0.0.1:{server.port}", spare=True)
        assert there.score(ref, COLUMNS, soon()).shape == (40,)
        server._leaf._batches._free = 0
        with pytest.raises(LeafBusy):
            there.score(ref, COLUMNS, soon())


def test_few_rows_cost_little_more_than_their_columns(store: ObjectStore, process: LeafProcess) -> None:
    """24 rows of 60 columns: 240 bytes a row."""
    inputs = tuple(InputSpec(name=f"c{at}") for at in range(60))
    ref = push(store, "206", trees(206, 60), inputs=inputs)
    there = remote_to(process.address)
    columns = columns_of(small_spec(inputs=inputs), rows=24)
    expected = leaf_of(store, memory_mib=64).score(ref, columns, soon())
    np.testing.assert_array_equal(there.score(ref, columns, soon()), expected)
    assert 24 * 240 <= there._counts.told["sent"] <= 1.05 * 24 * 240


MIXED = ColumnList(
    "mixed",
    tuple(
        InputSpec(name=f"c{at}", type=one, width=width)  # type: ignore[arg-type]
        for at, (one, width) in enumerate(
            [("float32", 1), ("int64", 3), ("float16", 2), ("float32", 4), ("uint8", 1), ("int32", 1), ("int64", 1)]
        )
    ),
)


@pytest.mark.parametrize("lz4", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 33])
def test_columns_of_all_types_and_widths_come_as_they_went(rows: int, lz4: bool) -> None:
    draw, schema = np.random.default_rng(5), wire.schema_of(MIXED)
    sent = [(100 * draw.random((rows, one.width) if one.width > 1 else rows)).astype(one.dtype) for one in MIXED.inputs]
    packed = wire.decode_trimmed(wire.encode_trimmed(sent, schema, lz4), schema, MIXED)
    for came, went in zip(MIXED.cut(packed), sent, strict=True):
        assert came.dtype == went.dtype
        np.testing.assert_array_equal(came, went)


def test_numbers_that_do_not_make_whole_rows_are_no_columns() -> None:
    schema = wire.schema_of(MIXED)
    sent = [np.zeros((2, one.width), one.dtype) for one in MIXED.inputs]
    sent[3] = sent[3][:1]
    with pytest.raises(wire.WireError, match="numbers of float32 are not"):
        wire.decode_trimmed(wire.encode_trimmed(sent, schema, False), schema, MIXED)


class Corrupt(LeafServer):
    """Tells of columns what `lie` makes of it."""

    def lie(self, told: dict[str, Any]) -> Any:
        raise NotImplementedError

    def _columns(self, asked: wire.Asked) -> bytes:
        told = json.loads(wire.decode_reply(super()._columns(asked)).why)
        return wire.encode_reply(wire.Status.LIST, why=json.dumps(self.lie(told)))


class Shuffled(Corrupt):
    def lie(self, told: dict[str, Any]) -> Any:
        return told | {"inputs": told["inputs"][::-1]}


class Shortened(Corrupt):
    def lie(self, told: dict[str, Any]) -> Any:
        return json.dumps(told)[:50]


class OfAnother(Corrupt):
    """A list that holds together, of other columns."""

    def lie(self, told: dict[str, Any]) -> Any:
        other = ColumnList("small", tuple(InputSpec(name=name) for name in ("walk", "common_neighbours", "other")))
        return json.loads(wire.encode_list(other))


@pytest.mark.parametrize("kind", [Shuffled, Shortened, OfAnother])
def test_by_a_corrupt_list_all_columns_are_sent_and_scores_stay_right(kind: type[Corrupt], store: ObjectStore) -> None:
    ref = push(store, "202")
    columns = COLUMNS | {"other": np.arange(40.0)}
    expected = leaf_of(store).score(ref, columns, soon())
    with serving(store, kind) as server:
        there = remote_to(f"127.0.0.1:{server.port}")
        for _ in range(2):
            np.testing.assert_array_equal(there.score(ref, columns, soon()), expected)
        told = there._counts.told
        assert told["untrimmed corrupt"] + told["untrimmed missing"] == 2
        assert (told["saved"], told["discarded"]) == (0, 2 * 320)
        there.close()


def test_a_list_that_is_spoilt_here_is_noticed_there(store: ObjectStore, process: LeafProcess) -> None:
    ref = push(store, "203")
    there = remote_to(process.address)
    expected = there.score(ref, COLUMNS, soon())
    good = there._lists[ref]
    spoilt = ColumnList("small", good.columns.inputs[::-1])
    there._lists[ref] = type(good)(spoilt, wire.schema_of(spoilt))
    np.testing.assert_array_equal(there.score(ref, COLUMNS, soon()), expected)
    assert there._counts.told["untrimmed corrupt"] == 1
    there._corrupt.clear()
    np.testing.assert_array_equal(there.score(ref, COLUMNS, soon()), expected)
    assert there._lists[ref].columns == good.columns


def test_bytes_that_are_no_request_are_told_so(process: LeafProcess) -> None:
    with flight.FlightClient(f"grpc://{process.address}") as client:
        for body in (b"", b"x" * 100, wire.encode_request(ModelRef(name="a", version="1"), 1, 1, bytes(16), b"z" * 9)):
            (result,) = client.do_action(flight.Action(wire.SCORE, body))
            assert wire.decode_reply(result.body.to_pybytes()).scores is None
        with pytest.raises(flight.FlightServerError, match="no such action"):
            list(client.do_action(flight.Action("other", b"")))
        assert {one.type for one in client.list_actions()} == {"score", "columns", "health", "metrics"}


def test_it_tells_its_models_and_its_metrics(store: ObjectStore, process: LeafProcess) -> None:
    ref = push(store, "204")
    remote_to(process.address).score(ref, COLUMNS, soon())
    health = json.loads(process.told(wire.HEALTH))
    assert health["ready"]
    assert "small@204" in health["models"]
    counted = b'pymk_leaf_rows_total{model="small@204"} 40.0'
    assert counted in process.told(wire.METRICS)
    with urllib.request.urlopen(f"http://127.0.0.1:{process.metrics_port}/metrics", timeout=60) as page:
        assert counted in page.read()


def test_it_tells_what_it_takes_of_the_machine(process: LeafProcess) -> None:
    found = process.metrics()
    assert found["process_resident_memory_bytes"] > 2**20
    assert found["pymk_leaf_python_blocks"] > 100_000


class KilledOnceAsked:
    """A client whose leaf is killed while it has a request: the time for that begins as it is sent, no sooner."""

    def __init__(self, client: Any, process: LeafProcess) -> None:
        self.client, self._process = client, process

    def do_action(self, *asked: Any) -> Any:
        threading.Timer(0.2, self._process.process.kill).start()
        return self.client.do_action(*asked)


def test_a_leaf_that_hangs_dies_comes_back_and_is_told_to_stop(store: ObjectStore) -> None:
    """One process for all of it, as each takes seconds to start."""
    ref = push(store, "205")
    with leaves(store, 1) as (process,):
        there = remote_to(process.address)
        expected = there.score(ref, COLUMNS, soon())

        freeze(process.process)
        with pytest.raises(TooLate):
            there.score(ref, COLUMNS, Deadline.after(0.3))
        there._client = KilledOnceAsked(there._client, process)
        with pytest.raises(LeafLost):
            there.score(ref, COLUMNS, soon())
        there._client = there._client.client
        process.process.wait()
        with pytest.raises(LeafAway, match="left alone"):
            there.score(ref, COLUMNS, soon())
        for _ in range(20):  # it is LeafLost as long as the connection is not known to be broken
            there.breaker._next_s = 0.0
            with pytest.raises(LeafAway) as away:
                there.score(ref, COLUMNS, soon())
            if away.type is not LeafLost:
                break
        assert away.type is LeafAway, "nobody listens there now"

        process.start()
        process.wait_until_ready()
        answered = None
        while answered is None:
            there.breaker._next_s = 0.0
            with suppress(LeafAway):
                answered = there.score(ref, COLUMNS, soon())
        np.testing.assert_array_equal(answered, expected)
        assert process.terminate() == 0


def test_a_leaf_finishes_what_it_has_in_hand_and_takes_no_more(store: ObjectStore) -> None:
    ref = push(store, "209")
    with serving(store) as server:
        there = remote_to(f"127.0.0.1:{server.port}")
        expected = there.score(ref, COLUMNS, soon())
        batches = server._leaf._batches
        batches._free = 0
        answers: list[np.ndarray] = []
        asking = threading.Thread(target=lambda: answers.append(there.score(ref, COLUMNS, soon())))
        asking.start()
        while not batches._waiting:
            pass
        ending = threading.Thread(target=server.end, args=(60,))
        ending.start()
        while not server.leaving:
            pass
        with pytest.raises(LeafAway, match="told to stop"):
            there.score(ref, COLUMNS, soon())
        batches._pass_on()
        asking.join()
        ending.join()
        np.testing.assert_array_equal(answers[0], expected)


def test_nothing_is_connected_before_the_first_request() -> None:
    assert isinstance(remote_to("no-such-host.invalid:8201"), RemoteLeaf)
    with pytest.raises(LeafAway):
        remote_to("no-such-host.invalid:8201").score(ModelRef(name="a", version="1"), COLUMNS, soon())
