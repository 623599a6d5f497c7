import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest

from infra.errors import StoreError
from infra.releases import ReleaseStore
from infra.store import ObjectStore, open_store
from infra.store_s3 import S3Store
from tests.suites.object_stores import ObjectStoreSuite


class TestS3Store(ObjectStoreSuite):
    @pytest.fixture
    def store(self, s3_bucket: str) -> ObjectStore:
        return open_store(f"s3://{s3_bucket}/some/prefix", writable=True)

    def test_an_honest_endpoint_may_be_published_to(self, store: ObjectStore) -> None:
        assert store.conditional_puts

    def test_the_probe_leaves_nothing_behind(self, store: ObjectStore) -> None:
        assert list(store.list("")) == []

    def test_a_large_file_goes_up_in_parts(self, store: ObjectStore, s3_bucket: str, tmp_path: Path) -> None:
        path = tmp_path / "large"
        path.write_bytes(b"0123456789abcdef" * (5 << 20))
        store.upload(path, "large")
        head = boto3.client("s3").head_object(Bucket=s3_bucket, Key="some/prefix/large")
        assert head["ETag"].strip('"').endswith("-3")
        assert store.open_local("large").read_bytes() == path.read_bytes()


def test_a_missing_bucket_is_an_error_that_names_it(s3_bucket: str) -> None:
    with pytest.raises(StoreError, match=r"no-such-bucket.*no such bucket"):
        open_store(f"s3://{s3_bucket}-no-such-bucket/x")


def test_an_unreachable_endpoint_says_what_to_check(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreError, match="AWS_ENDPOINT_URL"):
        open_store(f"s3://{s3_bucket}/x")


class _IgnoresConditions(BaseHTTPRequestHandler):
    """An S3 endpoint of the kind that answers every put with 200."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(b"", {"ETag": '"1"'})

    def do_GET(self) -> None:
        self._answer(b"<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>", {})

    def do_DELETE(self) -> None:
        self._answer(b"", {})

    def _answer(self, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Keeps the test's output clean."""


@pytest.fixture
def careless_endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _IgnoresConditions)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    yield
    server.shutdown()
    thread.join()


@pytest.mark.usefixtures("careless_endpoint")
def test_an_endpoint_that_ignores_conditional_puts_is_found_out_and_refused() -> None:
    store = open_store("s3://bucket/x", writable=True)
    assert isinstance(store, S3Store)
    assert not store.conditional_puts
    with pytest.raises(StoreError, match="ignores conditional puts"):
        ReleaseStore(store).rollback()


def test_the_careless_endpoint_is_really_asked(careless_endpoint: None) -> None:
    assert json.dumps(list(open_store("s3://bucket/x").folders(""))) == "[]"
