"""What requests are told of live facts that fail."""

from pathlib import Path

import pytest

from infra.live_lmdb import LmdbLiveFacts
from infra.settings import Settings
from lookup_api.facts_access import FactsAccess
from lookup_api.metrics import Metrics


def test_facts_that_nobody_understands_are_unreadable_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = FactsAccess(str(tmp_path / "live"), Settings(), Metrics())
    assert facts.of(1) is not None

    def strange(self: LmdbLiveFacts, viewer: int) -> None:
        raise IndexError("a record of a later version")

    monkeypatch.setattr(LmdbLiveFacts, "of", strange)
    assert [facts.of(1) for _ in range(20)] == [None] * 20
    assert facts.breaker.open
    facts.close()
