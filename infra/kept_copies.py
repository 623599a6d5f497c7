"""What a small object of a store held when it was last read well, in this user's local cache, for while it is not."""

import hashlib
import os
import tempfile

from infra.store import cache_folder


class KeptCopy:
    """Of one kind of object of one store; for this user alone. Raises OSError where the cache cannot be used."""

    def __init__(self, kind: str, store_uri: str) -> None:
        digest = hashlib.sha256(store_uri.encode()).hexdigest()[:16]
        self.path = cache_folder() / kind / f"{digest}.json"

    def keep(self, data: bytes) -> None:
        """Replaces it in one step."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.path.parent)
        try:
            with open(handle, "wb") as new:
                new.write(data)
            os.replace(name, self.path)
        except BaseException:
            os.unlink(name)
            raise

    def read(self) -> bytes | None:
        """None where none was kept."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None
