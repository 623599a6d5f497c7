"""numba's `njit` for the kernels of this room, whose compiled code is kept by the code of the whole room."""

import hashlib
from pathlib import Path

import numba
from numba import njit as njit


def kernel_folder(room: Path, base: Path) -> Path:
    """The folder under `base` for compiled kernels of the Python files of `room`, by their names and bytes.

    Numba looks at the one file in which a kernel stands, and would go on using what it had inlined from another.
    """
    digest = hashlib.sha256()
    for path in sorted(room.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return base / f"kernels-{digest.hexdigest()[:12]}"


_ROOM = Path(__file__).parent
_base = Path(numba.config.CACHE_DIR or _ROOM / "__pycache__")  # type: ignore[attr-defined]
numba.config.CACHE_DIR = str(kernel_folder(_ROOM, _base))  # type: ignore[attr-defined]
