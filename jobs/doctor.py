"""What this machine has of what pymk needs, and how to get the rest."""

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import psutil

from infra.errors import PymkError
from infra.live_facts import NO_EVICTION, evicting_policy_at
from infra.redis_connection import shown
from infra.settings import Settings

PYTHON = (3, 11)
JAVA = 17
MIN_DISK_BYTES, LEAST_DISK_BYTES = 10 * 2**30, 2**30
"""Room for a night of a million users, and for the sample."""
MIN_MEMORY_BYTES = 4 * 2**30
JAVA_TIMEOUT_S = 20
INSTALL = "`make setup`, or pip install 'pymk[cpu,pipeline]'"


@dataclass(frozen=True)
class Finding:
    """name: what was looked for. found: what is there. fix: how to get it, or what is lost without it.

    needed: whether nothing runs without it; else it is a warning. lack: what it is called where it is not ok.
    """

    name: str
    ok: bool
    found: str
    fix: str
    needed: bool = True
    lack: str = "missing"

    @property
    def state(self) -> str:
        return "ok" if self.ok else self.lack


def check(settings: Settings | None = None) -> list[Finding]:
    """Looks at everything; never raises. settings: what they name elsewhere is looked at too."""
    looks: tuple[Callable[[], Finding], ...] = (
        _python,
        _java,
        lambda: _package("pyspark", "Spark, the engine of the table stages", _version),
        lambda: _package("torch", "the encoder", _torch),
        lambda: _package("torch_geometric", "the encoder", _version),
        lambda: _package("faiss", "the hnsw and ivf_pq indexes", _version),
        lambda: _package("scann", "the scann index", _installed, optional=True),
        lambda: _package("xgboost", "the ranker", _version),
        lambda: _package("onnxruntime", "rankers that are networks", _version),
        lambda: _package("numba", "the block kernels", _version),
        lambda: _package("lmdb", "the serving tables", _version),
        lambda: _package("granian", "the lookup API's server", _version),
        lambda: _package("matplotlib", "the report's plots", _version),
        lambda: _package("airflow", "the nightly DAG", _installed),
        _redis,
        _disk,
        _memory,
    )
    if settings and settings.leaves.device != "cpu":
        looks += (lambda: _leaves_device(settings.leaves.device),)
    if settings and settings.api.facts:
        looks += (lambda: _live_facts(settings),)
    return [look() for look in looks]


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    untested = "" if sys.version_info[:2] <= PYTHON else ", newer than the tested 3.11"
    return Finding("Python", sys.version_info[:2] >= PYTHON, found + untested, "Install Python 3.11.")


def _java() -> Finding:
    """Spark's own rule: JAVA_HOME first, then the path."""
    home = os.environ.get("JAVA_HOME")
    program = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    fix = f"Install a Java {JAVA} runtime (apt install openjdk-{JAVA}-jre-headless) or set JAVA_HOME."
    if program is None:
        return Finding("Java", False, "not found", fix)
    try:
        ran = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=JAVA_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("Java", False, f"{program}: {error}", fix)
    version = java_major(ran.stderr + ran.stdout)
    if version is None:
        return Finding("Java", False, f"{program}: says no version", fix)
    return Finding("Java", version >= JAVA, f"{version} ({program})", fix)


def java_major(text: str) -> int | None:
    """The major version in what `java -version` prints: 8 for 1.8.0_292, 17 for 17.0.9."""
    found = re.search(r'version "(?:1\.)?(\d+)', text)
    return int(found.group(1)) if found else None


def _package(name: str, use: str, describe: Callable[[ModuleType], str], optional: bool = False) -> Finding:
    """Whether a package imports; scann and airflow are only looked up, as their import is slow or has side effects."""
    fix = f"{INSTALL}. Needed for {use}."
    if importlib.util.find_spec(name) is None:
        return Finding(name, optional, "not installed" + (" (optional)" if optional else ""), fix)
    if describe is _installed:
        return Finding(name, True, _distribution(name), fix)
    try:
        return Finding(name, True, describe(importlib.import_module(name)), fix)
    except Exception as error:  # a broken native library raises whatever it likes; the doctor reports it
        return Finding(name, False, f"does not import: {type(error).__name__}: {error}", fix)


def _version(module: ModuleType) -> str:
    return str(getattr(module, "__version__", None) or _distribution(module.__name__))


def _installed(module: ModuleType) -> str:
    return _distribution(module.__name__)


def _distribution(name: str) -> str:
    from importlib import metadata

    names = {"airflow": "apache-airflow", "faiss": "faiss-cpu", "torch_geometric": "torch-geometric"}
    try:
        return metadata.version(names.get(name, name))
    except metadata.PackageNotFoundError:
        return "installed, version unknown"


def _torch(module: ModuleType) -> str:
    device = module.cuda.get_device_name(0) if module.cuda.is_available() else "CPU"
    return f"{module.__version__}, on {device}"


def _redis() -> Finding:
    found = shutil.which("redis-server")
    fix = "Only to scale serving out: apt install redis-server. The embedded store needs none."
    return Finding("redis-server", True, found or "not found (optional)", fix)


def _live_facts(settings: Settings) -> Finding:
    uri, name = shown(settings.api.facts), "live facts"
    try:
        policy = evicting_policy_at(settings.api.facts, settings)
    except PymkError as error:
        return Finding(name, False, error.what, error.fix or "Check api.facts.", needed=False, lack="no answer")
    if policy:
        what = f"{uri} drops them when its memory is short ({policy}), and shows again whom they bar"
        return Finding(name, False, what, NO_EVICTION, lack="not kept")
    return Finding(name, True, uri, "Set api.facts.")


def _leaves_device(wanted: str) -> Finding:
    name, fix = "models on leaves", "Needed for `pymk leaf`; leaves.device says where they score."
    try:
        from lookup_api.leaves.devices import devices_of

        devices = devices_of(wanted)
    except PymkError as error:
        return Finding(name, False, error.what, error.fix or fix)
    except Exception as error:  # as of any package
        return Finding(name, False, f"{type(error).__name__}: {error}", fix, needed=False)
    return Finding(name, True, ", ".join(f"{kind} on {device}" for kind, device in devices.items()), fix)


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    fix = "A night of 1 M users writes about 10 GiB, the sample under 1: free some, or put the store on another disk."
    needed = free < LEAST_DISK_BYTES
    return Finding("free disk here", free >= MIN_DISK_BYTES, _gib(free), fix, needed, "too little" if needed else "low")


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    fix = "200,000 users need up to 12 GiB, small graphs under 4: close other programs or take a bigger machine."
    return Finding("free memory", free >= MIN_MEMORY_BYTES, _gib(free), fix, lack="too little")


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"
