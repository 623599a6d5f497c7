import pytest

from infra.request_threads import threads_of
from infra.settings import Settings


@pytest.mark.parametrize(
    ("facts", "threads"),
    [
        ("", 1),
        ("/srv/live", 1),
        ("file:///srv/live", 1),
        ("redis://host:6379/0", 4),
        ("rediss://host:6379/0", 4),
        ("unix:///run/redis.sock", 4),
        ("redis+cluster://host:6379", 4),
        ("rediss+cluster://host:6379", 4),
    ],
)
def test_a_worker_that_asks_another_host_for_live_facts_has_several_requests_in_hand(facts: str, threads: int) -> None:
    assert threads_of(Settings.model_validate({"api": {"facts": facts}})) == threads
