"""The doctor names what is there and what is missing, and never raises."""

import subprocess
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from infra.settings import Settings
from jobs import doctor
from lookup_api.leaves import devices
from tests.suites.redis_server import RedisServer


@pytest.mark.parametrize(
    ("printed", "major"),
    [
        ('openjdk version "17.0.9" 2023-10-17', 17),
        ('openjdk version "21" 2023-09-19', 21),
        ('java version "1.8.0_292"', 8),
        ("command not found", None),
    ],
)
def test_the_java_version_is_read_from_what_it_prints(printed, major):
    assert doctor.java_major(printed) == major


def fake_java(folder, line):
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho '{line}' >&2\n")
    program.chmod(0o755)
    return str(folder)


@pytest.mark.parametrize(("version", "ok"), [("17.0.1", True), ("1.8.0_292", False)])
def test_an_old_java_is_not_enough(tmp_path, monkeypatch, version, ok):
    monkeypatch.setenv("JAVA_HOME", fake_java(tmp_path, f'openjdk version "{version}"'))
    found = {f.name: f for f in doctor.check()}["Java"]
    assert found.ok is ok
    assert "17" in found.fix


def test_a_machine_without_java_or_redis_is_told_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {f.name: f for f in doctor.check()}
    assert not found["Java"].ok
    assert found["redis-server"].ok, "the embedded store needs no Redis"
    assert all(f.fix for f in found.values())


def test_a_broken_java_home_is_a_finding(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nowhere"))
    assert not {f.name: f for f in doctor.check()}["Java"].ok


def test_a_missing_or_broken_package_is_a_finding(tmp_path, monkeypatch):
    (tmp_path / "pymk_broken.py").write_text("raise OSError('libfoo.so: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    broken = doctor._package("pymk_broken", "a test", doctor._version)
    assert not broken.ok
    assert "libfoo.so" in broken.found
    missing = doctor._package("pymk_missing", "a test", doctor._version)
    assert not missing.ok
    assert doctor._package("pymk_missing", "a test", doctor._version, optional=True).ok


def test_asking_the_doctor_loads_no_heavy_module_before_it_looks():
    code = "import sys, jobs.doctor; print([m for m in ('torch', 'pyspark', 'airflow', 'faiss') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_redis_that_may_evict_live_facts_fails_and_one_that_does_not_answer_is_a_warning(tmp_path):
    server = RedisServer(tmp_path, maxmemory="100mb", maxmemory_policy="allkeys-lfu").start()
    settings = Settings.model_validate({"api": {"facts": server.uri}})
    found = doctor._live_facts(settings)
    assert (found.ok, found.needed) == (False, True)
    assert "allkeys-lfu" in found.found
    assert "noeviction" in found.fix
    with server.client() as client:
        client.config_set("maxmemory", 0)
    assert doctor._live_facts(settings).ok, "without a limit nothing is evicted"
    server.stop()
    found = doctor._live_facts(settings)
    assert (found.ok, found.needed) == (False, False)


def test_live_facts_in_a_folder_are_well_and_without_a_place_by_setting_not_looked_at(tmp_path):
    assert doctor._live_facts(Settings.model_validate({"api": {"facts": str(tmp_path)}})).ok
    assert "live facts" not in {f.name for f in doctor.check(Settings())}


def test_where_models_on_leaves_score_is_told_and_a_gpu_that_is_wanted_and_missing_fails(monkeypatch):
    monkeypatch.setattr(devices, "lack", lambda kind: devices.WITHOUT)
    auto, cuda = doctor._leaves_device("auto"), doctor._leaves_device("cuda")
    assert (auto.state, auto.found) == ("ok", "ranker on cpu, xgboost on cpu, onnx on cpu")
    assert (cuda.ok, cuda.needed) == (False, True)
    assert "leaves.device: cuda, but" in cuda.found
    monkeypatch.setattr(devices, "lack", Mock(side_effect=OSError("libxgboost.so: cannot open")))
    assert "libxgboost.so" in doctor._leaves_device("auto").found
    for device, looked_at in (("auto", True), ("cpu", False)):
        settings = Settings.model_validate({"leaves": {"device": device}})
        assert ("models on leaves" in {f.name for f in doctor.check(settings)}) == looked_at


@pytest.mark.parametrize(
    ("free_gib", "state", "passes"), [(20, "ok", True), (5, "low", True), (0.5, "too little", False)]
)
def test_room_for_the_sample_is_enough_and_less_than_a_large_night_is_a_warning(monkeypatch, free_gib, state, passes):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=int(free_gib * 2**30)))
    found = doctor._disk()
    assert found.state == state
    assert (found.ok or not found.needed) is passes
