"""Ranks people for a user who has no friend yet, by what the user's profile and affiliations say of each of them.

The score is the log of how likely the candidate befriends somebody like the viewer: how many friends they have, how
much likelier those who share the same groups are to be friends (lift), how often the candidate's friends are in the
viewer's groups (affinity), and how near they are by way of groups (walk, embedding), and, by setting, what two towers
learnt of profiles (which for such a viewer is what stands in `factors`). The weights are those of a
conditional logit, drawn towards defaults that hold on many networks.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.errors import CorruptArtifact
from lookup_api.ranking.features import FEATURES
from lookup_api.ranking.ranker import linear

NEWCOMERS_VERSION = 2
READS = (1, NEWCOMERS_VERSION)
"""Versions that can be opened; version 1 knows no towers."""
FILE = "newcomers.json"
DEFAULTS = {
    "log_candidate_degree": 0.8,
    "log_candidate_volume": 0.0,
    "candidate_friend_degree": -0.3,
    "attribute_lift": 0.15,
    "attribute_affinity": 0.15,
    "affiliation_lift": 0.1,
    "affiliation_affinity": 0.1,
    "log_joint": 0.4,
    "embedding_dot": 2.0,
    "factors": 0.3,
    "acted": 1.0,
    "acted_on": 1.0,
}
"""Columns of the model and their default weights; log_x is log(1 + x) of the ranker's column x where it has none."""
POPULAR = ("log_candidate_degree", "acted", "acted_on")
"""Those that tell something to a viewer of whom nothing is known."""

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


def without_friends(matrix: Float32) -> npt.NDArray[np.bool_]:
    """Which rows of the ranker's input float32 [n, F] have a viewer without friends, bool [n]."""
    return np.asarray(matrix[:, _VIEWER_DEGREE] == 0)


def design(matrix: Float32) -> Float32:
    """The columns of DEFAULTS, float32 [n, C], from the ranker's input float32 [n, F]."""
    out = np.empty((len(matrix), len(DEFAULTS)), np.float32)
    for at, name in enumerate(DEFAULTS):
        known = name in FEATURES
        column = matrix[:, FEATURES.index(name if known else name.removeprefix("log_"))]
        out[:, at] = column if known else np.log1p(column)
    return out


_VIEWER_DEGREE, _VIEWER_GROUPS = FEATURES.index("viewer_degree"), FEATURES.index("viewer_groups")
_OF_NOTHING = np.array([w if name in POPULAR else 0.0 for name, w in DEFAULTS.items()])


@dataclass(frozen=True)
class Newcomers:
    """weights float64 [C], of the columns of DEFAULTS. told: what else the file says about how it was learnt."""

    weights: Float64
    told: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def by_default(cls) -> "Newcomers":
        return cls(np.array(list(DEFAULTS.values())))

    def score(self, matrix: Float32) -> Float32:
        """Scores float32 [n] of rows float32 [n, F]; higher is better, comparable within one viewer.

        For a viewer without attributes and affiliations everything but the candidates' friends is noise.
        """
        columns = design(matrix)
        scores, bare = linear(columns, self.weights), matrix[:, _VIEWER_GROUPS] == 0
        scores[bare] = linear(columns[bare], _OF_NOTHING)
        return scores

    def amend(self, scores: Float32, matrix: Float32) -> Float32:
        """The ranker's scores float32 [n] of rows [n, F], but for viewers without friends."""
        alone = without_friends(matrix)
        if not alone.any():
            return scores
        amended = scores.copy()
        amended[alone] = self.score(matrix[alone])
        return amended

    def head(self) -> dict[str, Any]:
        """The content of the file."""
        weights = dict(zip(DEFAULTS, map(float, self.weights), strict=True))
        return {"version": NEWCOMERS_VERSION, "weights": weights, **self.told}

    def save(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(self.head(), indent=1, sort_keys=True))

    @classmethod
    def open(cls, folder: Path) -> "Newcomers | None":
        """Reads the weights saved beside a ranker; None where a version before them made it, which ranked for all.

        Raises CorruptArtifact for weights of other columns or of another version.
        """
        if not (folder / FILE).exists():
            return None
        head = json.loads((folder / FILE).read_text())
        weights = ({"factors": 0.0} if head["version"] == 1 else {}) | head["weights"]
        if head["version"] not in READS or weights.keys() != DEFAULTS.keys():
            raise CorruptArtifact(
                f"{folder / FILE}: version {head['version']} of other columns than this code makes",
                "Train the ranker again with this version, or serve it with the version that made it.",
            )
        return cls(np.array([weights[name] for name in DEFAULTS]))
