"""Index shards in other processes: the same people as in this one, and what is late or gone is left out and named."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.sharded import IDS, IndexSpec, build_shard, finish
from lookup_api.ann import Found, merged
from lookup_api.ann_local import LocalShards
from lookup_api.ann_remote import RemoteShards, ShardProcess
from lookup_api.ann_server import ShardHolder, ShardServer
from lookup_api.ann_wire import REQUEST, WireError, decode_reply, encode_reply, encode_request, read_request, reply_size
from lookup_api.breaker import Breaker
from lookup_api.deadline import Deadline
from tests.suites.index_backends import brute_force, clustered

ROWS, K, SHARDS = 900, 50, 3
VECTORS = clustered(ROWS, 16, 3)
IDENTITIES = np.arange(ROWS, dtype=np.int64) * 97 - 2**40
NAME = "20260101T000000Z-0123456789abcdef"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index")
    spec = IndexSpec("exact", {}, SHARDS, 17)
    for shard in range(SHARDS):
        build_shard(VECTORS, spec, shard, folder)
    finish(folder, spec)
    np.save(folder / IDS, IDENTITIES)
    return folder


class Ending(ShardServer):
    """A server whose end closes its connections, as the end of a process does."""

    def process_request(self, request: socket.socket, client_address: Any) -> None:  # type: ignore[override]
        self.taken = [*getattr(self, "taken", []), request]
        super().process_request(request, client_address)

    def server_close(self) -> None:
        for connection in getattr(self, "taken", []):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()


@contextmanager
def holding(folder: Path, *shards: int, name: str = NAME) -> Iterator[str]:
    """A server of these shards on a free port; yields its address."""
    holder = ShardHolder("unused", shards)
    holder._open[name] = LocalShards.open(folder, shards)
    with Ending(("127.0.0.1", 0), holder) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield "{}:{}".format(*server.server_address[:2])
        server.shutdown()


@contextmanager
def silent() -> Iterator[str]:
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def dropping() -> Iterator[str]:
    """Its queue of connections is full, so that whoever comes is dropped without a word."""
    with ExitStack() as held, socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            queued = held.enter_context(socket.socket())
            queued.setblocking(False)
            queued.connect_ex(server.getsockname())
        yield "{}:{}".format(*server.getsockname())


def remote(*addresses: str, name: str = NAME, failures: int = 100) -> RemoteShards:
    return RemoteShards([ShardProcess(a, Breaker(a, failures, 60.0)) for a in addresses], name)


def find(nearest: RemoteShards | LocalShards, row: int, seconds: float = 60.0, k: int = K) -> Found:
    return nearest.find(VECTORS[row], k, Deadline.after(seconds))


def test_shards_together_find_the_people_nearest_in_all(folder: Path) -> None:
    for row in range(0, ROWS, 90):
        rows, scores = brute_force(VECTORS, VECTORS[[row]], K)
        found = find(LocalShards.open(folder), row)
        assert found.ids.tolist() == IDENTITIES[rows[0]].tolist()
        np.testing.assert_allclose(found.scores, scores[0], rtol=0, atol=1e-5)
        assert found.left_out == ()


def test_other_processes_find_what_this_one_does(folder: Path) -> None:
    here = LocalShards.open(folder)
    with holding(folder, 0) as one, holding(folder, 1, 2) as other:
        there = remote(one, other)
        for row in range(0, ROWS, 60):
            expected, found = find(here, row), find(there, row)
            assert found.ids.tolist() == expected.ids.tolist()
            np.testing.assert_array_equal(found.scores, expected.scores)
            assert found.left_out == ()
        there.close()


def test_whoever_holds_a_shard_of_another_adds_nobody_twice(folder: Path) -> None:
    with holding(folder, 0, 1) as one, holding(folder, 1, 2) as other:
        assert find(remote(one, other), 7).ids.tolist() == find(LocalShards.open(folder), 7).ids.tolist()


def test_who_is_late_gone_or_of_another_release_is_left_out_and_named(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        gone = f"127.0.0.1:{closed.getsockname()[1]}"
    expected = find(LocalShards.open(folder, [0]), 5).ids.tolist()
    with holding(folder, 0) as here, silent() as late, holding(folder, 1, name="another") as other:
        for missing, seconds in ((gone, 60), (late, 0.5), (other, 60)):
            found = find(remote(here, missing), 5, seconds)
            assert found.ids.tolist() == expected
            assert found.left_out == (missing,)
        assert sorted(find(remote(here, gone, late, other), 5, seconds=0.5).left_out) == sorted([gone, late, other])


def test_who_keeps_failing_is_not_asked_each_time(folder: Path) -> None:
    with holding(folder, 0) as here, silent() as late:
        there = remote(here, late, failures=2)
        for _ in range(2):
            find(there, 1, seconds=0.2)
        found = find(there, 1)
        assert found.left_out == (late,)
        assert len(found.ids) == K


@pytest.mark.parametrize("dropped_first", [True, False])
def test_a_host_that_drops_packets_costs_the_others_nothing(folder: Path, dropped_first: bool) -> None:
    expected = find(LocalShards.open(folder), 5).ids.tolist()
    with dropping() as hole, holding(folder, 0, 1, 2) as healthy:
        breakers = {address: Breaker(address, 2, 60.0) for address in (hole, healthy)}
        order = [hole, healthy] if dropped_first else [healthy, hole]
        there = RemoteShards([ShardProcess(address, breakers[address]) for address in order], NAME)
        for _ in range(4):
            found = find(there, 5, seconds=0.5)
            assert found.ids.tolist() == expected
            assert found.left_out == (hole,)
        assert breakers[hole].open
        assert not breakers[healthy].open
        there.close()


def test_what_came_back_in_time_is_read_though_the_time_is_over_by_then() -> None:
    replied, looks = threading.Event(), iter([60.0, 60.0])

    class Ending(Deadline):
        """Over at the third look, which is as late as it takes for the reply to be there."""

        @property
        def left_s(self) -> float:
            left = next(looks, 0.0)
            return left if left else 0.0 * replied.wait()

    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            read_request(connection)
            connection.sendall(encode_reply(0, Found(np.array([7]), np.ones(1, np.float32)), ""))
            replied.set()
            connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as server, dropping() as hole:
        answering = threading.Thread(target=answer, args=(server,))
        answering.start()
        there = remote(hole, "{}:{}".format(*server.getsockname()))
        found = there.find(VECTORS[5], K, Ending(0.0))
        there.close()
        answering.join()
    assert (found.ids.tolist(), found.left_out) == ([7], (hole,))


def test_a_process_is_asked_by_its_name(folder: Path) -> None:
    with holding(folder, 0, 1, 2) as address:
        by_name = "localhost:" + address.rpartition(":")[2]
        assert find(remote(by_name), 7).left_out == ()
    nowhere = "no-such-host.invalid:8101"
    assert find(remote(nowhere), 7).left_out == (nowhere,)


def test_a_process_that_was_started_anew_is_asked_again(folder: Path) -> None:
    with holding(folder, 0, 1, 2) as first:
        there = remote(first)
        assert find(there, 3).left_out == ()
    port = int(first.rpartition(":")[2])
    assert find(there, 3).left_out == (first,)
    holder = ShardHolder("unused", None)
    holder._open[NAME] = LocalShards.open(folder)
    with ShardServer(("127.0.0.1", port), holder) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        assert find(there, 3).left_out == ()
        server.shutdown()


def test_a_shard_that_cannot_be_opened_is_left_out_here_too(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "shard-00001")
    shards = LocalShards.open(copy, damaged={"shard-00002"})
    found = find(shards, 0)
    assert shards.missing == found.left_out == ("shard 1", "shard 2")
    assert found.ids.tolist() == find(LocalShards.open(folder, [0]), 0).ids.tolist()


def test_bytes_that_are_no_request_are_answered_with_what_is_wrong(folder: Path) -> None:
    good = encode_request(NAME, VECTORS[0], K, 1.0)
    asked = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        good.replace(b"pymk\x01", b"pymk\x02"),
        encode_request(NAME, VECTORS[0] * np.float32(np.nan), K, 1.0),
        REQUEST.pack(b"pymk", 1, 0, 1, 16, 0) + bytes(64),
    ]
    with holding(folder, 0) as address:
        host, _, port = address.rpartition(":")
        for text in asked:
            with socket.create_connection((host, int(port)), 10) as connection:
                connection.sendall(text)
                status, people, size = reply_size(connection.recv(12, socket.MSG_WAITALL))
                body = connection.recv(size, socket.MSG_WAITALL)
                with pytest.raises(WireError):
                    decode_reply(status, people, body)
        assert find(remote(address), 0).left_out == ()


def test_a_reply_comes_back_as_it_was_sent() -> None:
    found = Found(np.array([-(2**63), 5, 2**63 - 1]), np.array([0.5, 0.25, -1], np.float32), ("shard 1", "shard 2"))
    sent = encode_reply(0, found, ",".join(found.left_out))
    status, people, size = reply_size(sent[:12])
    back = decode_reply(status, people, sent[12 : 12 + size])
    assert back.ids.tolist() == found.ids.tolist()
    assert back.scores.tolist() == found.scores.tolist()
    assert back.left_out == found.left_out


def test_nothing_found_is_merged_to_nobody() -> None:
    assert len(merged([], 5, ["shard 0"]).ids) == 0
