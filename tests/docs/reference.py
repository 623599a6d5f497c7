"""Renders the reference pages that follow from the code: `python -m tests.docs.reference` writes them."""

from pathlib import Path

import pyarrow as pa

from infra import schemas
from jobs.cli_config import describe

DOCS = Path(__file__).parents[2] / "docs"
ARTIFACT_TABLES = {"candidates": schemas.CANDIDATES, "rankings": schemas.RANKINGS, "quarantine": schemas.QUARANTINE}


def settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "From a TOML file (`--config`), the environment (`PYMK_INDEX__SHARDS=4`) or a flag (`--set index.shards=4`);",
        "later ones win. `pymk config show` prints each with its value and origin. Secrets are never settings.",
        "",
        "| setting | default | meaning |",
        "|---|---|---|",
    ]
    lines += [f"| `{row['key']}` | `{_plain(row['default'])}` | {row['meaning']} |" for row in describe(None)]
    return "\n".join(lines) + "\n"


def tables_page() -> str:
    lines = [
        "# Tables",
        "",
        "## The lake: what goes in",
        "",
        "Parquet folders under one URI, one folder a table, any file names. Only `connections` is required. An absent",
        "column is null; unknown columns of `profiles` become attributes, other unknown columns are ignored. A fact is",
        "seen by a run when its time is strictly before the as-of; a fact without a time always exists. Bad rows go to",
        "the graph artifact's `quarantine.parquet` with a reason.",
        "",
        "`pymk import` makes these tables from CSV files of the same names and columns (`connections.csv` or",
        "`connections.csv.gz`, ...): comma-separated UTF-8 with a header line. An empty field is null. Times are ISO",
        "8601 (`2026-01-31`, `2026-01-31 08:00:00`, `2026-01-31T08:00:00Z`), UTC where they name no zone. A value that",
        "does not fit its column is kept as text and reaches the quarantine of the run with its row.",
        "",
    ]
    for table in schemas.LAKE_TABLES.values():
        lines += [f"### {table.name}", "", *_columns(table.schema, table.required), ""]
    lines += ["## Artifacts: what comes out", ""]
    for name, schema in ARTIFACT_TABLES.items():
        required = [field.name for field in schema if not field.nullable]
        lines += [f"### {name}", "", *_columns(schema, required), ""]
    lines += ["## Shadows", "", "What [shadows](models.md#shadows) scored: one row a request and model.", ""]
    lines += [*_columns(schemas.SHADOWS, [field.name for field in schemas.SHADOWS if not field.nullable]), ""]
    return "\n".join(lines)


def _columns(schema: pa.Schema, required: tuple[str, ...] | list[str]) -> list[str]:
    rows = ["| column | type | required | meaning |", "|---|---|---|---|"]
    for field in schema:
        meaning = field.metadata[b"meaning"].decode()
        rows.append(f"| `{field.name}` | {_type(field.type)} | {'yes' if field.name in required else ''} | {meaning} |")
    return rows


def _type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        fields = ", ".join(f"{field.name} {field.type}" for field in kind.value_type)
        return f"list of struct({fields})"
    if pa.types.is_list(kind):
        return f"list of {_type(kind.value_type)}"
    if pa.types.is_map(kind):
        return f"map of {_type(kind.key_type)} to {_type(kind.item_type)}"
    return str(kind)


def _plain(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    (DOCS / "settings.md").write_text(settings_page())
    (DOCS / "tables.md").write_text(tables_page())
