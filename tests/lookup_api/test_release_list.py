"""GET /v1/releases while the store hangs."""

import threading

import pytest

from infra.errors import StoreError
from infra.store import ObjectStore
from lookup_api import release_list
from lookup_api.release_list import ReleaseList


def test_a_store_that_hangs_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ends, now_s = threading.Event(), [1000.0]

    def hung(uri: str) -> ObjectStore:
        ends.wait()
        raise StoreError(f"{uri}: is away")

    monkeypatch.setattr(release_list, "open_store", hung)
    monkeypatch.setattr(release_list, "PATIENCE_S", 600.0)
    listed = ReleaseList("s3://hung/store", lambda: now_s[0])
    reader = listed._reading()  # somebody has asked, and waits
    now_s[0] += 601
    with pytest.raises(StoreError, match="not read in time"):
        listed.json(None)  # would wait ten minutes more
    assert reader.is_alive()
    ends.set()
    reader.join()
