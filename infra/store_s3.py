"""An S3 bucket (or a prefix of one) as an object store, through boto3.

Credentials, region and endpoint come from the usual AWS_* environment variables (AWS_ENDPOINT_URL for another
vendor's store). Retries: botocore's standard mode, exponential with jitter.
"""

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from infra.errors import Conflict, NotFound, StoreError, UsageError
from infra.store import ObjectInfo, StoredObject, cache_folder, check_key, remove_stale

_CLIENT = Config(
    retries={"mode": "standard", "max_attempts": 5},
    connect_timeout=5,
    read_timeout=60,
    max_pool_connections=16,
)
_READER = _CLIENT.merge(Config(connect_timeout=3, read_timeout=10))
"""Whoever serves what it reads would rather know soon that nothing comes; a writer waits for large parts."""
_TRANSFER = TransferConfig(multipart_threshold=64 << 20, multipart_chunksize=32 << 20, max_concurrency=4)
OBJECTS = "objects"
"""Folder of the cache with copies of single objects, of each of its versions."""
UNUSED_S = 7 * 86_400.0
"""After which a copy that nobody opened again goes."""

_LOST = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_MISSING = {"NoSuchKey", "404", "NotFound"}


class S3Store:
    """See infra.store.ObjectStore."""

    def __init__(self, uri: str, bucket: str, prefix: str, client: Any) -> None:
        self.uri = uri.rstrip("/")
        self.conditional_puts = True
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._client = client

    @classmethod
    def open(cls, uri: str, *, bucket: str, prefix: str, writable: bool) -> "S3Store":
        """Raises UsageError for what cannot be a bucket's name, StoreError when the bucket cannot be reached.

        A writable store is probed for conditional puts.
        """
        with _explained(uri):
            try:
                client = boto3.client("s3", config=_CLIENT if writable else _READER)
                client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
            except ParamValidationError:
                fix = "Write s3://bucket/prefix; a name is of 3 to 63 letters, digits, '.', '-' and '_'."
                raise UsageError(f"{uri}: {bucket!r} is not a name of a bucket", fix) from None
            except ValueError as error:  # of an endpoint that is no URL
                raise StoreError(f"{uri}: {error}", "Write AWS_ENDPOINT_URL as https://host:port.") from error
        store = cls(uri, bucket, prefix, client)
        if writable:
            store.conditional_puts = store._honours_conditions()
        return store

    def get(self, key: str) -> StoredObject:
        with _explained(f"{self.uri}/{key}"):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key(key))
            return StoredObject(answer["Body"].read(), answer["ETag"])

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        condition = {"IfNoneMatch": "*"} if if_absent else {"IfMatch": if_match} if if_match is not None else {}
        with _explained(f"{self.uri}/{key}"):
            answer = self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=data, **condition)
        return str(answer["ETag"])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        with _explained(f"{self.uri}/{prefix}"):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for item in page.get("Contents", ()):
                    key = item["Key"].removeprefix(self._prefix)
                    yield ObjectInfo(key, item["Size"], item["ETag"], item["LastModified"].timestamp())

    def folders(self, prefix: str) -> Sequence[str]:
        full = self._prefix + prefix
        with _explained(f"{self.uri}/{prefix}"):
            pages = self._client.get_paginator("list_objects_v2")
            found = pages.paginate(Bucket=self._bucket, Prefix=full, Delimiter="/")
            names = [p["Prefix"].removeprefix(full).rstrip("/") for q in found for p in q.get("CommonPrefixes", ())]
        return sorted(names)

    def exists(self, key: str) -> bool:
        try:
            with _explained(f"{self.uri}/{key}"):
                self._client.head_object(Bucket=self._bucket, Key=self._key(key))
        except NotFound:
            return False
        return True

    def delete(self, key: str) -> None:
        with _explained(f"{self.uri}/{key}"):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(key))

    def delete_folder(self, prefix: str) -> None:
        # The manifest goes first, so that a reader never finds a complete-looking artifact with files missing.
        infos = sorted(self.list(prefix), key=lambda info: not info.key.endswith("manifest.json"))
        for info in infos:
            self.delete(info.key)

    def upload(self, path: Path, key: str) -> None:
        with _explained(f"{self.uri}/{key}"):
            self._client.upload_file(str(path), self._bucket, self._key(key), Config=_TRANSFER)

    def open_local(self, key: str) -> Path:
        with _explained(f"{self.uri}/{key}"):
            head = self._client.head_object(Bucket=self._bucket, Key=self._key(key))
        version = hashlib.sha256(f"{self.uri}/{key}:{head['ETag']}".encode()).hexdigest()
        path = cache_folder() / OBJECTS / version[:2] / version / Path(key).name
        with suppress(OSError):  # there is none, or another user's
            os.utime(path)  # what is used stays
        if not path.exists():
            self.download(key, path)
        return path

    def local_folder(self, prefix: str) -> Path | None:
        return None

    def download(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.parent / f".{path.name}.{uuid.uuid4().hex}"
        try:
            with _explained(f"{self.uri}/{key}"):
                self._client.download_file(self._bucket, self._key(key), str(partial), Config=_TRANSFER)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def sole_writer(self) -> AbstractContextManager[None]:
        return nullcontext()

    def scratch(self) -> Path:
        root = cache_folder() / "scratch"
        root.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=root))

    def clean_scratch(self, min_age_s: float) -> None:
        remove_stale(cache_folder() / "scratch", min_age_s)
        for folder in (cache_folder() / OBJECTS).glob("??"):
            remove_stale(folder, max(min_age_s, UNUSED_S))

    def commit_folder(self, folder: Path, prefix: str, last: str, check: Callable[[], None] = lambda: None) -> bool:
        names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        final = f"{prefix.rstrip('/')}/{last}"
        if self.exists(final):
            shutil.rmtree(folder)
            return False
        for name in names:
            if name != last:
                self.upload(folder / name, f"{prefix.rstrip('/')}/{name}")
        try:
            check()
            self.put(final, (folder / last).read_bytes(), if_absent=self.conditional_puts)
        except Conflict:
            return False
        finally:
            shutil.rmtree(folder)
        return True

    def _key(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _honours_conditions(self) -> bool:
        """Whether a second exclusive put, and a put over a wrong etag, are refused by this endpoint."""
        key = f"probe-{uuid.uuid4().hex}"
        try:
            self.put(key, b"1", if_absent=True)
            return self._refused(key, if_absent=True) and self._refused(key, if_match='"0"')
        finally:
            with suppress(StoreError):
                self.delete(key)

    def _refused(self, key: str, **condition: Any) -> bool:
        try:
            self.put(key, b"2", **condition)
        except Conflict:
            return True
        return False


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turns boto3's errors into NotFound, Conflict or a StoreError that says what to do."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        if code == "NoSuchBucket":
            raise StoreError(f"{what}: no such bucket", "Check the URI and AWS_ENDPOINT_URL.") from error
        if code in _MISSING:
            raise NotFound(f"{what}: no such object") from error
        if code in _LOST or status in _LOST:
            raise Conflict(f"{what}: changed by another writer ({code})") from error
        fix = "Check the credentials in AWS_*." if status in ("401", "403") else ""
        raise StoreError(f"{what}: {code or status}: {error}", fix) from error
    except (BotoCoreError, Boto3Error) as error:
        raise StoreError(f"{what}: {error}", "Check AWS_ENDPOINT_URL, the network and the credentials.") from error
    except OSError as error:
        raise StoreError(f"{what}: {error}", "Check PYMK_CACHE_DIR and its free space.") from error
