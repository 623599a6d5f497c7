"""Rate limits by the generic cell rate algorithm (GCRA, as in ITU-T I.371): one number a name, no timers.

A name may ask `per_s` times a second on average and a second's worth at once, or one where that is less. The number is
the time up to which its requests are paid for; a request is refused when that lies further ahead.
"""

import time
from collections.abc import Callable

KEY, USER = "key", "user"
BURST_S = 1.0
MOST_NAMES = 50_000
"""Names held, twice: when so many are in the young half, the old half is forgotten."""


class RateLimit:
    """The limit of one kind of name, for this process alone unless lookup_api.shared_rates tells it of others.

    Two threads that count the same name in the same microsecond may count it once: a limit is no ledger.
    """

    def __init__(self, kind: str, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.kind = kind
        self.per_s = per_s
        self._cost_s = 1 / per_s
        self.burst_s = max(BURST_S, self._cost_s)
        self._clock = clock
        self._young: dict[str, float] = {}
        self._old: dict[str, float] = {}
        self.spent: dict[str, int] = {}
        """Requests let through since `take_spent`, where they are worth telling others; empty while nobody asks."""
        self.telling = False

    def refuse(self, name: str) -> float:
        """0 where the request is within the limit, else the seconds after which to ask again."""
        now = self._clock()
        paid = self._young.get(name)
        if paid is None:
            paid = self._old.get(name, now)
        ahead = max(paid - now, 0.0)
        if ahead + self._cost_s > self.burst_s + self._cost_s / 2:
            return ahead + self._cost_s - self.burst_s
        self._keep(name, now + ahead + self._cost_s)
        if self.telling:
            self.spent[name] = self.spent.get(name, 0) + 1
        return 0.0

    def learn(self, name: str, ahead_s: float) -> None:
        """All processes together have paid for `name` up to so many seconds ahead."""
        paid = self._clock() + ahead_s
        if paid > self._young.get(name, 0.0):
            self._keep(name, paid)

    def take_spent(self) -> dict[str, int]:
        found, self.spent = self.spent, {}
        return found

    def _keep(self, name: str, paid: float) -> None:
        self._young[name] = paid
        if len(self._young) > MOST_NAMES:
            self._old, self._young = self._young, {}
