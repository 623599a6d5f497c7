"""Settings: defaults, a TOML file, the environment and flags, parsed once into frozen typed values.

Later sources win: default < file < environment (`PYMK_INDEX__SHARDS=4`) < flag (`--set index.shards=4`).
Secrets are never settings; they come from the environment alone (AWS_*).
"""

import logging
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from infra.errors import UsageError
from infra.night_settings import (
    Ablation,
    BackendName,
    CandidateSettings,
    EncoderSettings,
    EvaluateSettings,
    GateSettings,
    GraphSettings,
    IndexSettings,
    NewcomerSettings,
    RankerSettings,
    RankSettings,
    RunSettings,
    SparkSettings,
    StoreSettings,
)
from infra.serving_settings import (
    ApiSettings,
    EventSettings,
    LadderSettings,
    LeafSettings,
    ModelSettings,
    RulesSettings,
    ServingSettings,
    ShadowSettings,
)
from infra.settings_section import Section

__all__ = [
    "ENV_PREFIX",
    "OTHER_VARIABLES",
    "Ablation",
    "ApiSettings",
    "BackendName",
    "CandidateSettings",
    "EncoderSettings",
    "EvaluateSettings",
    "EventSettings",
    "GateSettings",
    "GraphSettings",
    "IndexSettings",
    "LadderSettings",
    "LeafSettings",
    "ModelSettings",
    "NewcomerSettings",
    "RankSettings",
    "RankerSettings",
    "RulesSettings",
    "RunSettings",
    "ServingSettings",
    "Settings",
    "ShadowSettings",
    "SparkSettings",
    "StoreSettings",
    "load",
]

ENV_PREFIX = "PYMK_"
OTHER_VARIABLES = (
    "PYMK_LAKE", "PYMK_STORE", "PYMK_CONFIG", "PYMK_CACHE_DIR", "PYMK_BENCH_USERS", "PYMK_DRAIN_FILE",
    "PYMK_SPARE_THREADS",
    "PYMK_REDIS_USERNAME", "PYMK_REDIS_PASSWORD", "PYMK_RUN_ID", "PYMK_ALERT_WEBHOOK", "PYMK_LATE", "PYMK_STORE_URL",
)  # fmt: skip
"""Variables with the prefix that are no settings; whatever else has it is warned about, as likely misspelt."""

log = logging.getLogger(__name__)


class Settings(Section):
    """Every setting of the product, by section."""

    run: RunSettings = RunSettings()
    spark: SparkSettings = SparkSettings()
    graph: GraphSettings = GraphSettings()
    encoder: EncoderSettings = EncoderSettings()
    index: IndexSettings = IndexSettings()
    candidates: CandidateSettings = CandidateSettings()
    newcomers: NewcomerSettings = NewcomerSettings()
    ranker: RankerSettings = RankerSettings()
    rank: RankSettings = RankSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    serving: ServingSettings = ServingSettings()
    gates: GateSettings = GateSettings()
    rules: RulesSettings = RulesSettings()
    api: ApiSettings = ApiSettings()
    ladder: LadderSettings = LadderSettings()
    leaves: LeafSettings = LeafSettings()
    models: ModelSettings = ModelSettings()
    shadows: ShadowSettings = ShadowSettings()
    events: EventSettings = EventSettings()
    store: StoreSettings = StoreSettings()

    def section(self, name: str) -> dict[str, Any]:
        """One section as plain JSON values, as frozen into manifests."""
        return getattr(self, name).model_dump(mode="json")


def load(
    file: str | Path | None = None,
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[Settings, dict[str, str]]:
    """Settings and, for each `section.key` that is not a default, its origin (file name, variable or flag).

    flags maps `section.key` to text. Raises UsageError naming the key, the value, the rule and the origin.
    """
    merged: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}

    def put(section: str, key: str, value: Any, origin: str) -> None:
        merged.setdefault(section, {})[key] = value
        origins[f"{section}.{key}"] = origin

    for section, values in _read_toml(file).items():
        if not isinstance(values, dict):
            raise UsageError(f"{section}: is not a section ({file})", f"Sections: {', '.join(Settings.model_fields)}.")
        for key, value in values.items():
            put(section, key, value, str(file))
    for name, text in sorted((os.environ if environ is None else environ).items()):
        section, separator, key = name.removeprefix(ENV_PREFIX).lower().partition("__")
        if name.startswith(ENV_PREFIX) and separator:
            put(section, key, _value_of(section, key, text), name)
        elif name.startswith(ENV_PREFIX) and name not in OTHER_VARIABLES:
            log.warning("%s", _ignored(name))
    for dotted, text in (flags or {}).items():
        section, separator, key = dotted.partition(".")
        if not separator:
            raise UsageError(f"--set {dotted}: is not section.key", "Write for example --set index.shards=4.")
        put(section, key, _value_of(section, key, text), f"--set {dotted}")
    return _validate(merged, origins), origins


def _read_toml(file: str | Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(Path(file).read_text())
    except FileNotFoundError:
        raise UsageError(f"{file}: no such settings file", "Check --config.") from None
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror or error}", "Give a TOML file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        fix = "Write sections and keys as [index] and shards = 4; docs/settings.md lists them."
        raise UsageError(f"{file}: not TOML: {error}", fix) from None


def _ignored(variable: str) -> str:
    """What to say of a variable that looks like a setting and is none: not an error, as others may set it for us."""
    rest = variable.removeprefix(ENV_PREFIX).lower()
    for section, field in Settings.model_fields.items():
        if rest.removeprefix(f"{section}_") in type(field.default).model_fields and rest.startswith(f"{section}_"):
            meant = f"{ENV_PREFIX}{section}__{rest.removeprefix(f'{section}_')}".upper()
            return f"{variable}: is no setting and is ignored; two underscores part section and key: {meant}"
    return f"{variable}: is no setting and is ignored; settings are written {ENV_PREFIX}INDEX__SHARDS"


def _value_of(section: str, key: str, text: str) -> Any:
    """Text from the environment or a flag; a tuple setting is split at commas, pydantic parses the rest."""
    model = Settings.model_fields.get(section)
    field = type(model.default).model_fields.get(key) if model else None
    if field is not None and get_args(field.annotation)[-1:] == (Ellipsis,):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _validate(merged: dict[str, dict[str, Any]], origins: dict[str, str]) -> Settings:
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        lines = []
        for one in error.errors():
            dotted = ".".join(str(part) for part in one["loc"][:2])
            origin = origins.get(dotted) or next((o for k, o in origins.items() if k.startswith(dotted)), "default")
            if one["type"] == "extra_forbidden":
                known = ", ".join(_known_keys(dotted))
                lines.append(f"{dotted}: no such setting ({origin}); known: {known}")
            else:
                lines.append(f"{dotted}: {one['input']!r}: {one['msg'][:1].lower()}{one['msg'][1:]} ({origin})")
        raise UsageError("\n".join(lines), "`pymk config show` lists every setting.") from None


def _known_keys(dotted: str) -> list[str]:
    section = dotted.partition(".")[0]
    model = Settings.model_fields.get(section)
    return list(type(model.default).model_fields) if model else list(Settings.model_fields)
