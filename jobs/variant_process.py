"""Makes a routed model's lists in a process of its own: native code that crashes on what a night brings ends no more.

`python -m jobs.variant_process ASKED`, below jobs.process_tree, so that it ends with whoever started it, and removes
its scratch first. ASKED is JSON: store, release (a nightly's id), surface, route (of this model alone), bounds. Each
line on stdout is a JSON object: {"tell": a line of progress}, {"ready": true} before the model is opened, and at last
{"made": a Variant} or {"error": {"kind", "what", "fix"}}.
"""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import orjson

from infra.errors import CorruptArtifact, PymkError, StoreError, UsageError
from infra.model_routes import Route
from infra.releases import ReleaseStore
from infra.store import ObjectStore, open_store
from infra.variants import Variant
from jobs.canary_lists import Unfit
from jobs.termination import unwind_at_sigterm
from lookup_api.canary_guard import Bounds

KINDS = {kind.__name__: kind for kind in (Unfit, UsageError, StoreError, CorruptArtifact)}
"""Errors that are the same here and there; others are PymkError."""
FAULTS = {128 + one: one for one in (signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)}
"""Exit code of a process tree -> the signal, where native code did it. SIGBUS is of a disk that fails under a file that
is mapped, SIGKILL of memory that is short."""


def make_apart(
    store: ObjectStore, release_id: str, surface: str, route: Route, bounds: Bounds, tell: Callable[[str], None]
) -> Variant:
    """Lists of a nightly release by the only model of a route. Raises what `jobs.variant_lists.make` does, and Unfit
    where the model ends the process."""
    asked = {
        "store": store.uri,
        "release": release_id,
        "surface": surface,
        "route": route.model_dump(mode="json"),
        "bounds": asdict(bounds),
    }
    python = (sys.executable, "-m")
    command = [*python, "jobs.process_tree", *python, "jobs.variant_process", orjson.dumps(asked).decode()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = _heard(process.stdout, tell)
    if "made" in said:
        return Variant(**said["made"])
    if error := said.get("error"):
        raise KINDS.get(error["kind"], PymkError)(error["what"], error["fix"])
    if "ready" in said and (fault := FAULTS.get(process.returncode)):
        raise Unfit(f"its process was ended by {fault.name}")
    raise PymkError(f"their process ended with exit code {process.returncode}", "Its output tells why, if anything.")


def _heard(lines: Iterable[bytes], tell: Callable[[str], None]) -> dict[str, Any]:
    """All that is said but for progress, which is told."""
    heard: dict[str, Any] = {}
    for line in lines:
        with suppress(orjson.JSONDecodeError):  # cut off as the process ended
            heard |= orjson.loads(line)
        if "tell" in heard:
            tell(heard.pop("tell"))
    return heard


def main() -> None:
    from jobs.variant_lists import make, wanted_of

    unwind_at_sigterm()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    with os.fdopen(os.dup(1), "wb", buffering=0) as lines:
        os.dup2(2, 1)  # what libraries print is no line of these

        def say(**said: Any) -> None:
            lines.write(orjson.dumps(said) + b"\n")

        asked = orjson.loads(sys.argv[1])
        route, bounds = Route.model_validate(asked["route"]), Bounds(**asked["bounds"])
        try:
            store = open_store(asked["store"], writable=True)
            nightly = ReleaseStore(store).get(asked["release"])
            [wanted] = wanted_of(asked["surface"], route, bounds)
            say(ready=True)
            made = make(store, nightly, wanted, lambda line: say(tell=line))
        except PymkError as error:
            kind = next((name for name, one in KINDS.items() if isinstance(error, one)), "")
            say(error={"kind": kind, "what": error.what, "fix": error.fix})
        except OSError as error:
            say(error={"kind": StoreError.__name__, "what": str(error), "fix": ""})
        else:
            say(made=asdict(made))


if __name__ == "__main__":
    main()
