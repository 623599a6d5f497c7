"""Which lists of a nightly release another model ranked: `{store}/variants/{release_id}/{name@version}.json`.

The lists are an artifact of the kind `variant_lists`, beside the release and not of it: they can be made at any time,
and who serves the release finds them here.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import orjson

from infra.artifacts import check_name
from infra.errors import CorruptArtifact, NotFound, UsageError
from infra.model_routes import ModelRef
from infra.store import ObjectStore

KIND = "variant_lists"
FOLDER = "variants"


@dataclass(frozen=True)
class Variant:
    """share: of the users whose lists there are. users: how many."""

    artifact_id: str
    model: str
    share: float
    users: int


def keep_variant(store: ObjectStore, release_id: str, variant: Variant) -> None:
    """Notes the lists of a nightly release, in place of those that the same model made for others of its users."""
    key = _key(release_id, ModelRef.parse(variant.model))
    store.put(key, orjson.dumps(asdict(variant), option=orjson.OPT_INDENT_2))


def find_variant(store: ObjectStore, release_id: str, model: ModelRef) -> Variant | None:
    """The lists that the model made of a nightly release; None where there are none. Raises CorruptArtifact."""
    key = _key(release_id, model)
    try:
        data = store.get(key).data
    except NotFound:
        return None
    return _parsed(data, f"{store.uri}/{key}")


def variants_of(store: ObjectStore, release_id: str) -> Iterator[Variant]:
    """All lists of a nightly release that other models made. Raises CorruptArtifact."""
    for info in store.list(f"{FOLDER}/{check_name(release_id, 'release id')}/"):
        yield _parsed(store.get(info.key).data, f"{store.uri}/{info.key}")


def named_lists(store: ObjectStore, release_ids: Iterable[str]) -> set[tuple[str, str]]:
    """(kind, artifact id) of the lists that other models made of the releases. Raises CorruptArtifact."""
    return {(KIND, one.artifact_id) for release_id in release_ids for one in variants_of(store, release_id)}


def forget_variants(store: ObjectStore, release_id: str) -> None:
    """Removes the notes of a release that is gone; its lists are artifacts that nothing names any more."""
    store.delete_folder(f"{FOLDER}/{check_name(release_id, 'release id')}/")


def _key(release_id: str, model: ModelRef) -> str:
    return f"{FOLDER}/{check_name(release_id, 'release id')}/{model}.json"


def _parsed(data: bytes, where: str) -> Variant:
    try:
        variant = Variant(**json.loads(data))
        check_name(variant.artifact_id, "artifact id")
        ModelRef.parse(variant.model)
        return variant
    except (ValueError, TypeError, AttributeError, RecursionError, UsageError) as error:
        fix = "Delete the file, and make the lists again with `pymk model rank`."
        raise CorruptArtifact(f"{where}: not a note of lists: {error}", fix) from error
