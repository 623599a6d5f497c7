"""`pymk config`: every setting with its meaning, value, default and origin."""

from pathlib import Path
from typing import Annotated, Any

import typer

from infra import settings as settings_module
from infra.errors import UsageError
from infra.settings import Settings
from jobs.cli_output import output, table

config_app = typer.Typer(help="Show and validate settings.", no_args_is_help=True)

File = Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]


@config_app.command()
def show(
    config: File = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.key=value.")] = None,
    json: Json = False,
) -> None:
    """Print every setting with its meaning, default and origin."""
    rows = describe(config, set_)
    output.show(
        {row["key"]: row for row in rows},
        json,
        lambda c: c.print(
            table("settings", ["key", "value", "default", "origin", "meaning"], [list(row.values()) for row in rows])
        ),
    )


@config_app.command()
def validate(
    config: Annotated[Path, typer.Argument(help="TOML file of settings.")],
    json: Json = False,
) -> None:
    """Check a settings file; every error names the key, the value and the rule."""
    settings_module.load(config)
    output.show({"valid": True, "file": str(config)}, json, lambda c: c.print(f"{config}: valid"))


def describe(config: Path | None, pairs: list[str] | None = None) -> list[dict[str, Any]]:
    """One row a setting: key, value, default, origin, meaning."""
    flags = dict(pair.split("=", 1) for pair in pairs or () if "=" in pair)
    if len(flags) != len(pairs or ()):
        raise UsageError(f"--set {pairs}: not one value a key", "Write --set section.key=value once a key.")
    settings, origins = settings_module.load(config, flags)
    rows = []
    for section in Settings.model_fields:
        values = getattr(settings, section)
        for key, field in type(values).model_fields.items():
            name = f"{section}.{key}"
            origin = origins.get(name, "default")
            rows.append(
                {
                    "key": name,
                    "value": getattr(values, key),
                    "default": field.default,
                    "origin": origin,
                    "meaning": field.description,
                }
            )
    return rows
