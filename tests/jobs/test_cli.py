"""The command line as a script sees it: exit codes, one JSON object on stdout, everything else on stderr."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conftest import SmallRelease
from tests.suites.command import pymk, pymk_json


def test_release_show_keeps_its_contract(small_release: SmallRelease) -> None:
    shown = pymk_json("release", "show", f"--store={small_release.store}")
    assert {"release_id", "as_of", "parents", "artifacts"} <= set(shown)
    for kind, artifact in shown["artifacts"].items():
        assert {"path", "rows", "bytes", "content_hash"} <= set(artifact), kind
        assert (Path(small_release.store) / artifact["path"]).is_dir()
        assert artifact["path"].endswith("/data")


def test_list_verify_and_report_read_the_current_release(small_release: SmallRelease) -> None:
    listed = pymk_json("release", "list", f"--store={small_release.store}")
    assert listed["current"] in [r["release_id"] for r in listed["releases"]]
    assert pymk_json("release", "verify", f"--store={small_release.store}")["verified"]
    assert pymk_json("report", f"--store={small_release.store}")


def test_a_report_goes_to_a_folder_or_is_a_usage_error(small_release: SmallRelease, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for out, said in (
        (file, "File exists"),
        (file / "below", "Not a directory"),
        (Path("/proc/none"), "No such file or directory"),
    ):
        refused = pymk_json("report", f"--store={small_release.store}", f"--out={out}", code=2)["error"]
        assert refused["what"] == f"--out {out}: {said}"
        assert "folder" in refused["fix"]
    pymk_json("report", f"--store={small_release.store}", f"--out={tmp_path / 'new' / 'folder'}")
    assert {p.name for p in (tmp_path / "new" / "folder").iterdir()} == {"report.html", "report.json"}


def test_a_stage_prints_its_artifact_and_finds_it_again(small_release: SmallRelease) -> None:
    options = [f"--lake={small_release.lake}", f"--store={small_release.store}", f"--as-of={small_release.as_of}"]
    options += [f"--set={key}={value}" for key, value in small_release.flags.items()]
    made = pymk_json("stage", "embed", *options)
    assert made["found"]
    assert (Path(small_release.store) / "embeddings" / made["artifact_id"]).is_dir()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["run", "--lake=nowhere", "--store={tmp}", "--as-of=2026-01-01"], 1, "nowhere: no such folder"),
        (["run", "--lake={tmp}", "--store={tmp}", "--as-of=soon"], 2, "'soon': not a date"),
        (["run", "--lake={tmp}", "--store={tmp}", "--as-of=2026-01-01", "--set=index.shards=0"], 2, "index.shards"),
        (["run", "--lake={tmp}", "--store={tmp}/s", "--as-of=2026-01-01"], 1, "connections"),
        (["run", "--lake={tmp}"], 2, "wrong arguments"),
        (["stage", "nonsense", "--lake={tmp}", "--store={tmp}", "--as-of=2026-01-01"], 2, "no such stage"),
        (["release", "show", "--store={tmp}"], 1, "nothing was published"),
        (["release", "show", "../../etc/passwd", "--store={tmp}"], 2, "not a valid release id"),
        (["import", "{tmp}/none", "--lake={tmp}"], 2, "none"),
        (["sample", "--users=0", "--lake={tmp}"], 2, "wrong arguments"),
        (["sample", "--users=9", "--seed=-5", "--lake={tmp}"], 2, "wrong arguments"),
        (["sample", "--users=9", "--end=0001-01-01", "--lake={tmp}"], 2, "--end 0001-01-01: is before the year 1900"),
        (["config", "show", "--config={tmp}"], 2, "{tmp}: cannot be read: Is a directory"),
        (["run", "--lake={tmp}", "--store={tmp}", "--as-of=0001-01-01T00:00:00+14:00"], 2, "the years 1 to 9999"),
        (["stage", "embed", "--shard=0", "--lake={tmp}", "--store={tmp}", "--as-of=2026-01-01"], 2, "only build_index"),
    ],
)
def test_a_failure_has_its_code_and_says_what_is_wrong(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    found = pymk_json(*(a.format(tmp=tmp_path) for a in arguments), code=code)
    assert said.format(tmp=tmp_path) in found["error"]["what"]
    assert found["error"]["exit_code"] == code


def test_sample_refuses_a_lake_that_holds_tables(tmp_path: Path) -> None:
    made = pymk_json("sample", "--users=50", f"--lake={tmp_path / 'lake'}", "--seed=3")
    assert made
    refused = pymk_json("sample", "--users=50", f"--lake={tmp_path / 'lake'}", code=2)
    assert "holds tables already" in refused["error"]["what"]


def test_import_refuses_a_lake_that_holds_tables_unless_they_are_to_be_replaced(tmp_path: Path) -> None:
    """Tables and parts of the first data set that the second lacks would silently be read with it."""
    lake, folder = tmp_path / "lake", tmp_path / "csv"
    folder.mkdir()
    (folder / "connections.csv").write_text("user_id,other_id\n1,2\n")
    old = [lake / "connections" / "part-00001.parquet", lake / "profiles" / "part-00000.parquet"]
    other = lake / "notes" / "mine.txt"
    for file in (*old, other):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    refused = pymk_json("import", str(folder), f"--lake={lake}", code=2)
    assert refused["error"]["what"] == f"{lake}: holds tables already: connections, profiles"
    assert "--replace" in refused["error"]["fix"]

    (folder / "profiles.csv").write_text("no_user\n1\n")
    pymk_json("import", str(folder), f"--lake={lake}", "--replace", code=1)
    assert all(file.exists() for file in old), "nothing is deleted before the new tables could be read"

    (folder / "profiles.csv").unlink()
    pymk_json("import", str(folder), f"--lake={lake}", "--replace")
    files = {path for path in lake.rglob("*") if path.is_file() and ".pymk" not in path.parts}
    assert files == {lake / "connections/part-00000.parquet", other}


def test_sample_replaces_the_tables_of_a_lake_when_told_to(tmp_path: Path) -> None:
    lakes = [tmp_path / "one", tmp_path / "two"]
    for lake, users in ((lakes[0], 80), (lakes[0], 50), (lakes[1], 50)):
        pymk_json("sample", f"--users={users}", f"--lake={lake}", "--replace")
    one, two = (sorted((p.parent.name, p.read_bytes()) for p in lake.rglob("*.parquet")) for lake in lakes)
    assert one == two


def test_an_unforeseen_error_is_one_json_object_with_its_trace_on_stderr() -> None:
    broken = "import sys, jobs.cli, jobs.doctor\njobs.doctor.check = lambda *_: 1 / 0\n"
    code = broken + "sys.argv = ['pymk', 'doctor', '--json']\njobs.cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert (error["what"], error["exit_code"]) == ("ZeroDivisionError: division by zero", 1)
    assert "Traceback" in done.stderr


def test_a_file_that_grows_past_its_limit_says_so(tmp_path: Path) -> None:
    limit = "import resource, sys, jobs.cli\nresource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
    code = limit + "sys.argv = ['pymk', *sys.argv[1:]]\njobs.cli.main()"
    command = [sys.executable, "-c", code, "sample", "--users=3000", f"--lake={tmp_path}", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert "File too large" in error["what"]
    assert "ulimit -f" in error["fix"]
    assert "Traceback" not in done.stderr


def test_config_show_gives_each_setting_its_origin() -> None:
    shown = pymk_json("config", "show", "--set=index.shards=3")
    assert shown["index.shards"]["value"] == 3
    assert shown["index.shards"]["origin"] == "--set index.shards"
    assert shown["rank.per_user"]["origin"] == "default"


def test_config_validate_accepts_and_refuses(tmp_path: Path) -> None:
    file = tmp_path / "pymk.toml"
    file.write_text("[index]\nshards = 2\n")
    assert pymk_json("config", "validate", str(file))["valid"]
    file.write_text("[index]\nshards = -2\n")
    assert "index.shards: -2" in pymk_json("config", "validate", str(file), code=2)["error"]["what"]


def test_the_command_starts_without_the_engines() -> None:
    engines = ("torch", "pyspark", "airflow", "faiss", "numba")
    code = f"import jobs.cli, sys; print([m for m in {engines!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_import_names_what_it_does_not_use(tmp_path: Path) -> None:
    folder = tmp_path / "csv"
    folder.mkdir()
    (folder / "connections.csv").write_text("user_id,other_id,created_at,disconnected_at\n1,2,2020-01-01,soon\n")
    (folder / "friends.csv").write_text("x\n")
    told = pymk("import", str(folder), "--lake", str(tmp_path / "lake"))
    assert told.returncode == 0
    assert "friends.csv" in told.stdout
    assert "not used: created_at" in told.stdout
    assert "kept as text, as some value does not fit: disconnected_at" in told.stdout


def test_the_version_is_told() -> None:
    told = subprocess.run([sys.executable, "-m", "jobs.cli", "--version"], capture_output=True, text=True, check=False)
    assert told.returncode == 0
    assert told.stdout.startswith(version("pymk"))
