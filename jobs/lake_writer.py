"""New tables into a lake: one without tables, or in place of those that are there, never among them.

From the first file to the last step the lake holds an object, infra.lake.UNFINISHED, with which no reader opens it. New
files get names that no old file has; old files go once every new one is there. So a writer that fails leaves the lake
as it was, and one that is killed leaves a lake that is refused until an import or a sample with --replace is done.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.errors import Conflict, UsageError
from infra.lake import UNFINISHED
from infra.schemas import LAKE_TABLES
from infra.store import ObjectStore, open_store

WriteFile = Callable[[str, Path], None]
"""`write_file(key, local_path)`, the key being table/name."""


@contextmanager
def lake_writer(lake: str, replace: bool) -> Iterator[WriteFile]:
    """The lake, made if it is a folder that is missing; its tables are the written ones when the block ends.

    replace: every table that is there goes, and nothing else. Raises UsageError for a lake that holds tables, or that a
    writer left unfinished, without it, and Conflict where another writer is at work. When the block raises, what was
    written is removed, and tables that were there are as they were.
    """
    store = open_store(lake, create=True)
    with store.sole_writer():
        old = _table_keys(store)
        broken = store.exists(UNFINISHED)
        if (old or broken) and not replace:
            _refuse(lake, old, broken)
        new: list[str] = []

        def write_file(key: str, path: Path) -> None:
            if not new:
                _begin(store, old, broken)
            new.append(_free(key, old))
            store.upload(path, new[-1])

        try:
            yield write_file
        except BaseException:
            if new:
                _take_back(store, new, old)
            if new and not broken:
                store.delete(UNFINISHED)
            raise
        if new:
            _remove(store, old, kept=new)
            store.delete(UNFINISHED)


def _table_keys(store: ObjectStore) -> list[str]:
    return [info.key for table in LAKE_TABLES for info in store.list(f"{table}/")]


def _begin(store: ObjectStore, old: list[str], broken: bool) -> None:
    """Marks the lake as unfinished. Raises Conflict where another writer did, or wrote since `old` was listed.

    S3 has no other lock.
    """
    fix = "Wait until that one has ended, and then look what the lake holds."
    try:
        store.put(UNFINISHED, b"A writer of this lake is at work, or was killed.\n", if_absent=not broken)
    except Conflict:
        raise Conflict(f"{store.uri}: another writer of this lake is at work", fix) from None
    if _table_keys(store) != old:
        if not broken:
            store.delete(UNFINISHED)
        raise Conflict(f"{store.uri}: another writer of this lake was at work meanwhile", fix)


def _refuse(lake: str, old: list[str], broken: bool) -> None:
    tables = ", ".join(sorted({key.partition("/")[0] for key in old})) or "none that is whole"
    said = f"{lake}: a writer that was killed left tables" if broken else f"{lake}: holds tables already"
    fix = "The new rows would mix with them: give an empty folder, or --replace to delete these tables."
    raise UsageError(f"{said}: {tables}", f"Should it still be at work, wait for it. {fix}" if broken else fix)


def _free(key: str, taken: list[str]) -> str:
    """The key, with a number before its ending where it is taken."""
    stem, dot, ending = key.rpartition(".")
    tried, number = key, 1
    while tried in taken:
        number += 1
        tried = f"{stem}-{number}{dot}{ending}"
    return tried


def _take_back(store: ObjectStore, new: list[str], old: list[str]) -> None:
    for key in new:  # one by one, as on a full disk there is no room to put a folder aside
        store.delete(key)
    _remove(store, new, kept=old)


def _remove(store: ObjectStore, keys: list[str], kept: list[str]) -> None:
    """Removes the objects, whole folders where nothing of them is kept; what is kept lies at the top of its table.

    A linked folder of a table goes as a link: what it leads to is not the lake's.
    """
    tables = {key.partition("/")[0] for key in keys}
    for table in sorted(tables):
        if not any(key.startswith(f"{table}/") for key in kept):
            store.delete_folder(f"{table}/")
            continue
        for folder in store.folders(f"{table}/"):
            prefix = f"{table}/{folder}/"
            if any(key.startswith(prefix) for key in keys):
                store.delete_folder(prefix)
        for key in keys:
            if key.startswith(f"{table}/") and key.count("/") == 1:
                store.delete(key)
