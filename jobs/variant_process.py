"""Makes a routed model's lists in a process of its own: native code that crashes on what a night brings ends no more.

`python -m jobs.variant_process ASKED`, below jobs.process_tree, so that it ends with whoever started it. ASKED is JSON:
store, release (a nightly's id), surface, route (of this model alone), bounds. Each line on stdout is a JSON object:
{"tell": a line of progress}, {"in_hand": whether the model's own code runs}, and at last {"made": a Variant} or
{"error": {"kind", "what", "fix"}}. What it wrote before a crash stays in the store's scratch folder, until releases are
cleaned.
"""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from infra.errors import CorruptArtifact, PymkError, StoreError, UsageError, explain
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
"""Exit code of a process tree -> the signal, where native code did it. SIGBUS is of a disk that fails below a mapped
file, SIGKILL of memory that is short."""


def make_apart(
    store: ObjectStore, release_id: str, surface: str, route: Route, bounds: Bounds, tell: Callable[[str], None]
) -> Variant:
    """Lists of a nightly release by the only model of a route. Raises what `jobs.variant_lists.make` does, and Unfit
    where the model's own code ends the process."""
    asked = {
        "store": store.uri,
        "release": release_id,
        "surface": surface,
        "route": route.model_dump(mode="json"),
        "bounds": asdict(bounds),
    }
    python = (sys.executable, "-m")
    command = [*python, "jobs.process_tree", *python, "jobs.variant_process", json.dumps(asked)]
    line = subprocess.PIPE  # whose end here ends the tree, be it by Ctrl-C, which the tree's own session keeps from it
    with subprocess.Popen(command, stdin=line, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        said = _heard(process.stdout, tell)
    if "made" in said:
        return Variant(**said["made"])
    if error := said.get("error"):
        raise KINDS.get(error["kind"], PymkError)(error["what"], error["fix"])
    if said.get("in_hand") and (fault := FAULTS.get(process.returncode)):
        raise Unfit(f"its process was ended by {fault.name}")
    raise PymkError(f"their process ended with exit code {process.returncode}", "Its output tells why, if anything.")


def _heard(lines: Iterable[bytes], tell: Callable[[str], None]) -> dict[str, Any]:
    """All that is said but for progress, which is told."""
    heard: dict[str, Any] = {}
    for line in lines:
        with suppress(json.JSONDecodeError):  # cut off as the process ended
            heard |= json.loads(line)
        if "tell" in heard:
            tell(heard.pop("tell"))
    return heard


def main() -> None:
    unwind_at_sigterm()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no line of these

    def say(**said: Any) -> None:
        lines.write(json.dumps(said) + "\n")

    try:
        say(made=asdict(_made(json.loads(sys.argv[1]), say)))
    except (PymkError, OSError, MemoryError) as error:
        known = explain(error) if isinstance(error, OSError) else error
        known = known if isinstance(known, PymkError) else PymkError(str(error) or type(error).__name__)
        kind = next((name for name, one in KINDS.items() if isinstance(known, one)), "")
        say(error={"kind": kind, "what": known.what, "fix": known.fix})


def _made(asked: dict[str, Any], say: Callable[..., None]) -> Variant:
    from jobs.variant_lists import make, wanted_of

    store = open_store(asked["store"], writable=True)
    nightly = ReleaseStore(store).get(asked["release"])
    [wanted] = wanted_of(asked["surface"], Route.model_validate(asked["route"]), Bounds(**asked["bounds"]))
    return make(store, nightly, wanted, lambda line: say(tell=line), lambda is_in_hand: say(in_hand=is_in_hand))


if __name__ == "__main__":
    main()
