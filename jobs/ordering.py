"""How scored lists become ranked ones: less the price of exposure, and then blended for diversity.

Users without friends pay no price: whom they meet first is who everybody meets.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infra.graph import Csr, Graph, ViewName, open_array
from infra.settings import RankSettings
from lookup_api.ranking.exposure import Scored
from lookup_api.ranking.groups import memberships
from lookup_api.ranking.top import Top, top_per_user

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Ordering:
    """price float32 [N]: what exposure takes from each person's score. settled bool [N]: users who pay it. vectors
    float32 [N, D], groups rows of users: what the blend compares people by; empty where there is no blend."""

    settings: RankSettings
    price: Float32
    settled: npt.NDArray[np.bool_]
    vectors: Float32
    groups: Csr

    @classmethod
    def of(cls, settings: RankSettings, price: Float32, graph: Path, embeddings: Path, view: ViewName) -> "Ordering":
        vectors, groups = _traits(settings.blend, graph, embeddings, view)
        return cls(settings, price, settled_users(graph, view), vectors, groups)

    def best(self, scored: Scored, k: int) -> Top:
        """The best k of each list, in the order in which they are shown."""
        adjusted = np.where(self.settled[scored.user], scored.adjusted(self.price), scored.score)
        top = top_per_user(scored.user, scored.candidate, adjusted, k)
        if self.settings.blend == "none":
            return top
        from gnn.blend.lists import blend_lists

        at = top.order
        lists = (scored.user[at], scored.candidate[at], adjusted[at])
        places = blend_lists(self.settings.blend, self.settings.diversity, *lists, self.vectors, self.groups)
        return Top(at[places], top.rank)


@lru_cache(maxsize=2)
def settled_users(graph: Path, view: ViewName) -> npt.NDArray[np.bool_]:
    """Users with a friend in the view of a saved graph, bool [N]: those whose lists make the prices, and pay them."""
    return Graph.open(graph).view(view).connections.degrees() > 0


@lru_cache(maxsize=2)
def _traits(blend: str, graph: Path, embeddings: Path, view: ViewName) -> tuple[Float32, Csr]:
    if blend == "none":
        return np.zeros((0, 0), np.float32), Csr.empty(0)
    opened = Graph.open(graph)
    return open_array(embeddings / f"{view}.npy"), memberships(opened, opened.view(view))
