"""New tables into a lake: one without tables, or in place of those that are there, never among them."""

from collections.abc import Callable
from pathlib import Path

from infra.errors import UsageError
from infra.schemas import LAKE_TABLES
from infra.store import open_store


def lake_writer(lake: str, replace: bool) -> Callable[[str, Path], None]:
    """`write_file(key, local_path)` of the lake, made if it is a folder that is missing.

    replace: the first file written deletes every table that is there, and nothing else; a writer that fails before it
    has anything to write leaves the lake as it was. Raises UsageError for a lake that holds tables without it.
    """
    store = open_store(lake, create=True)
    old = [name for name in store.folders("") if name in LAKE_TABLES]
    if old and not replace:
        fix = "The new rows would mix with them: give an empty folder, or --replace to delete these tables."
        raise UsageError(f"{lake}: holds tables already: {', '.join(old)}", fix)

    def write_file(key: str, path: Path) -> None:
        while old:
            store.delete_folder(f"{old.pop()}/")
        store.upload(path, key)

    return write_file
