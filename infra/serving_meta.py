"""The head of the serving tables: what the blobs of a release hold, by name, and where the shared rows are."""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import orjson

from infra.errors import CorruptArtifact

META_VERSION = 1
HEAD_KEY, POPULAR_KEY, GROUP_RULES_KEY = 0, 1, 2
"""Keys of the meta table: this head as JSON, the popular list as a ranking blob, and which cap holds for each company
and school: a byte a group, by its id in the users' blobs. The last is missing in releases of earlier versions."""
CHANGED_KEY, DEPARTED_KEY, POPULAR_IDS_KEY, INACTIVE_KEY = 3, 4, 5, 6
"""Keys of the meta table of a delta: the ids of all users whose rows differ from those of its base, of those who left
since, of the base's popular list, to whose places rows refer, and of inactive users whose bars alone differ (missing in
deltas of earlier versions); int64 each. A delta holds the head and these alone, and of the other tables the rows of the
first."""
PRICE = "price"
"""Name of a column after the user features: what exposure takes from the score of whoever is shown this person."""


@dataclass(frozen=True)
class ServingHead:
    """users: how many have a row. pair_features, user_features, attributes: names of the blobs' columns.

    caps: names that a ranking blob's group rules index. embedding_dimensions: 0 where none are stored. entries: of
    everyone's friend lists together, 0 in releases of earlier versions, which do not say.
    """

    users: int
    pair_features: tuple[str, ...]
    user_features: tuple[str, ...]
    attributes: tuple[str, ...]
    caps: tuple[str, ...]
    embedding_dimensions: int
    entries: int = 0
    version: int = META_VERSION

    def to_json(self) -> bytes:
        return orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)

    @classmethod
    def from_json(cls, data: bytes | None) -> "ServingHead":
        """Raises CorruptArtifact for bytes that are no head or one of an unknown version."""
        try:
            values = orjson.loads(data or b"")
            if values["version"] != META_VERSION:
                raise CorruptArtifact(f"serving tables: version {values['version']}, this code reads {META_VERSION}")
            names = ("pair_features", "user_features", "attributes", "caps")
            return cls(**values | {name: tuple(values[name]) for name in names})
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise CorruptArtifact("serving tables: the head is unreadable", "Verify the release.") from error


def decode_ids(data: bytes | None) -> npt.NDArray[np.int64]:
    """What a delta keeps at CHANGED_KEY and DEPARTED_KEY. Raises CorruptArtifact."""
    if data is None or len(data) % 8:
        raise CorruptArtifact("serving tables: the ids of a delta are missing or cut off", "Verify the release.")
    return np.frombuffer(data, "<i8").astype(np.int64)


def encode_ids(ids: npt.NDArray[np.int64]) -> bytes:
    return ids.astype("<i8").tobytes()
