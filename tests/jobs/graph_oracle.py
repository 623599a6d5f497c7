"""The rules of the lake in plain Python over sets and dictionaries: slow, and independent of Spark and numpy."""

from datetime import UTC, datetime, timedelta
from typing import Any

Row = dict[str, Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RESTRICTING = {"deactivated": "reactivated", "banned": "unbanned", "opted_out": "opted_in"}


def day(time: datetime | None) -> int | None:
    return None if time is None else (time - EPOCH).days


class Oracle:
    """What the graph must hold, by user id. Tables: name -> good rows."""

    def __init__(self, tables: dict[str, list[Row]], as_of: datetime) -> None:
        self.tables, self.as_of = tables, as_of
        self.inactive = {user for user in self._acting() if self._is_out(user)}
        named = {
            row[key] for rows in map(self.seen, tables) for row in rows for key in ("user_id", "other_id") if key in row
        }
        self.users = sorted(named - self.inactive)
        self.friends = self._friends()

    def seen(self, table: str) -> list[Row]:
        start = {"connections": "connected_at", "profiles": "joined_at", "affiliations": "since"}.get(table, "at")
        return [row for row in self.tables.get(table, []) if row[start] is None or row[start] < self.as_of]

    def open(self, table: str) -> list[Row]:
        end = "disconnected_at" if table == "connections" else "removed_at"
        return [row for row in self.seen(table) if row[end] is None or row[end] >= self.as_of]

    def _acting(self) -> set[int]:
        return {row["user_id"] for row in self.seen("user_events")}

    def _is_out(self, user: int) -> bool:
        out: dict[str, tuple[datetime, bool]] = {}
        for row in self.seen("user_events"):
            if row["user_id"] != user:
                continue
            if row["event"] == "erased":
                return True
            for shut, opened in RESTRICTING.items():
                if row["event"] in (shut, opened):
                    out[shut] = max(out.get(shut, (EPOCH, False)), (row["at"], row["event"] == shut))
        return any(restricted for _, restricted in out.values())

    def _known(self, row: Row) -> bool:
        return row["user_id"] in set(self.users) and row["other_id"] in set(self.users)

    def _friends(self) -> dict[tuple[int, int], int | None]:
        """Pair, smaller id first -> day of the earliest open interval, None if one of them has no time."""
        found: dict[tuple[int, int], list[int | None]] = {}
        for row in self.open("connections"):
            if self._known(row):
                pair = (min(row["user_id"], row["other_id"]), max(row["user_id"], row["other_id"]))
                found.setdefault(pair, []).append(day(row["connected_at"]))
        return {pair: None if None in days else min(d for d in days if d is not None) for pair, days in found.items()}

    def affiliations(self, before_day: int | None = None) -> dict[tuple[int, str, str], int]:
        found: dict[tuple[int, str, str], int] = {}
        for row in self.seen("affiliations"):
            since = day(row["since"])
            late = before_day is not None and since is not None and since >= before_day
            if row["user_id"] in self.users and not late:
                key = (row["user_id"], row["kind"], row["entity_id"])
                found[key] = found.get(key, 0) + (1 if row["times"] is None else row["times"])
        return found

    def interactions(self, before_day: int | None = None) -> dict[tuple[int, int], int]:
        found: dict[tuple[int, int], int] = {}
        for row in self.seen("interactions"):
            if self._known(row) and (before_day is None or (day(row["at"]) or 0) < before_day):
                key = (row["user_id"], row["other_id"])
                found[key] = found.get(key, 0) + 1
        return found

    def excluded(self, dismissal_days: int) -> set[tuple[int, int]]:
        blocked = [(row["user_id"], row["other_id"]) for row in self.open("blocks") if self._known(row)]
        expiry = self.as_of - timedelta(days=dismissal_days)
        dismissed = {
            (row["user_id"], row["other_id"])
            for row in self.open("dismissals")
            if self._known(row) and (row["at"] is None or row["at"] >= expiry)
        }
        return {*blocked, *((b, a) for a, b in blocked)} | dismissed

    def inactive_bars(self, dismissal_days: int) -> list[tuple[int, int]]:
        """Whom inactive users must not be shown, ascending: their friends, blocks either way, whom they dismissed."""
        expiry = self.as_of - timedelta(days=dismissal_days)
        young = [row for row in self.open("dismissals") if row["at"] is None or row["at"] >= expiry]
        mutual = [(row["user_id"], row["other_id"]) for name in ("connections", "blocks") for row in self.open(name)]
        pairs = {*mutual, *((b, a) for a, b in mutual), *((row["user_id"], row["other_id"]) for row in young)}
        erased = {row["user_id"] for row in self.seen("user_events") if row["event"] == "erased"}
        return sorted((a, b) for a, b in pairs if a in self.inactive and not {a, b} & erased)

    def profiles(self) -> dict[int, Row]:
        """The row with the latest joined_at, of several such the greatest; a missing value is the smallest."""
        found: dict[int, Row] = {}
        for row in self.seen("profiles"):
            if row["user_id"] in self.users:
                found[row["user_id"]] = max(found.get(row["user_id"], row), row, key=_null_first)
        return found


def _null_first(row: Row) -> list[Any]:
    names = ["joined_at", *sorted(set(row) - {"user_id", "joined_at"})]
    values = [row[name] for name in names]
    return [(value is not None, 0 if value is None else value) for value in values]
