"""Options that several `pymk` commands take, and the settings that they make."""

from pathlib import Path
from typing import Annotated

import typer

from infra import settings as settings_module
from infra.errors import UsageError
from infra.settings import Settings

Lake = Annotated[str, typer.Option(help="Folder or s3:// URI of the raw tables.")]
Store = Annotated[str, typer.Option(help="Folder or s3:// URI of artifacts and releases.")]
AsOf = Annotated[str, typer.Option(help="Date (00:00 UTC) or RFC 3339 time; only facts strictly before it exist.")]
Config = Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="section.key=value, over file and environment.")]
OfRelease = Annotated[str | None, typer.Option("--release", help="Release id; CURRENT if not given.")]
Reason = Annotated[str | None, typer.Option(help="Why, kept beside the release; with --force.")]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]


def flags_of(pairs: list[str] | None) -> dict[str, str]:
    """Value by key of `--set`, the last of each key. Raises UsageError."""
    flags = {}
    for pair in pairs or ():
        key, separator, value = pair.partition("=")
        if not separator:
            raise UsageError(f"--set {pair}: no value", "Write --set section.key=value.")
        flags[key.strip()] = value.strip()
    return flags


def load_settings(config: Path | None, pairs: list[str] | None = None) -> Settings:
    """Of the file, the environment and `--set`. Raises UsageError."""
    return settings_module.load(config, flags_of(pairs))[0]
