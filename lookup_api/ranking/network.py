"""One view of the graph as the kernels read it: friendships, groups, interactions, and who must not be shown."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from infra.graph import NO_DAY, Csr, Graph, Int32, ViewName
from lookup_api.ranking.groups import Groups, leaders_of, transpose


@dataclass(frozen=True)
class Network:
    """N users. days int32 [entries of friends], NO_DAY where unknown. today: the day up to which the view knows.

    acted: interactions of a user on others; acted_on: those of others on the user. excluded: rows never shown to a row.
    popular int32 [P]: rows by falling degree.
    """

    friends: Csr
    days: Int32
    today: int
    groups: Groups
    acted: Csr
    acted_on: Csr
    excluded: Csr
    joined_day: Int32
    popular: Int32

    @property
    def users(self) -> int:
        return self.friends.rows

    @cached_property
    def leaders(self) -> Csr:
        """The most connected members of each large group; see `leaders_of`."""
        return leaders_of(self.groups.members, self.friends.degrees())

    @classmethod
    def build(cls, graph: Graph, name: ViewName) -> "Network":
        view = graph.view(name)
        links = view.connections
        days = links.values if links.values is not None else np.full(links.entries, NO_DAY, np.int32)
        return cls(
            friends=links,
            days=days,
            today=today_of(graph, name),
            groups=Groups.build(graph, view),
            acted=view.interactions,
            acted_on=_reverse(view.interactions),
            excluded=graph.excluded if name == "now" else Csr.empty(graph.users),
            joined_day=graph.joined_day,
            popular=np.argsort(-links.degrees(), kind="stable").astype(np.int32),
        )


def today_of(graph: Graph, name: ViewName) -> int:
    """The day at which a view stands: the as-of, or for past, when facts have times, the first day held out."""
    if name == "past" and graph.hold_out == "time" and len(graph.held_out_day):
        return int(graph.held_out_day.min())
    return graph.as_of_day


def _reverse(rows: Csr) -> Csr:
    turned = transpose(rows, rows.rows)
    if rows.values is None:
        return turned
    order = np.argsort(rows.indices, kind="stable")
    return Csr(turned.indptr, turned.indices, np.asarray(rows.values)[order])


@lru_cache(maxsize=1)
def open_network(folder: Path, name: ViewName) -> Network:
    """The network of a saved graph's view, built once a process: a worker handles many blocks of one view."""
    return Network.build(Graph.open(folder), name)
