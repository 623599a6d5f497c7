"""`pymk config`: every setting with its meaning, value, default and origin."""

from pathlib import Path
from typing import Annotated, Any

import typer

from infra import settings as settings_module
from infra.settings import Settings
from jobs.cli_options import Config, Json, Set, flags_of
from jobs.cli_output import output, table

config_app = typer.Typer(help="Show and validate settings.", no_args_is_help=True)


@config_app.command()
def show(
    config: Config = None,
    set_: Set = None,
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
    settings, origins = settings_module.load(config, flags_of(pairs))
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
