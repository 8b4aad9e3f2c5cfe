"""What a person wants different from the defaults: recipes that ship, files, single options; and what may change on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from unrolled.core.errors import ConfigurationError, nearest
from unrolled.core.settings import Differences, combine, merge, read_toml

RESUMABLE = {
    "minutes",
    "epochs",
    "steps",
    "threads",
    "save_seconds",
    "patience",
    "tensorboard",
    "clip_norm",
    "clip_value",
    "optimizer.learning_rate",
}
"""The options of `train` that may change when a run goes on: its end, its surroundings, and what saves one that diverges."""


def refuse_other_changes(changes: Mapping[str, Any]) -> None:
    """Refuse to change on resume what would make another run of it.

    Args:
        changes: nested options.

    Raises:
        ConfigurationError: one of them may not change.
    """
    for key in flat_keys(changes):
        if key.removeprefix("train.") not in RESUMABLE:
            can = ", ".join(f"`train.{name}`" for name in sorted(RESUMABLE))
            raise ConfigurationError(f"`{key}` cannot change when a run goes on; what can: {can}; train a new run for anything else")


def flat_keys(nested: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The keys of nested options, joined by dots.

    Args:
        nested: options by group.
        prefix: put before every key.

    Returns:
        Such as `train.optimizer.name`.
    """
    found = []
    for key, value in nested.items():
        found += flat_keys(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [prefix + key]
    return found


def gather(presets: Iterable[str], files: Iterable[Path], overrides: Iterable[str]) -> Differences:
    """What a person wants different from the defaults: presets, then files, then single options.

    Args:
        presets: names of recipes that ship.
        files: TOML files.
        overrides: `key=value` texts.

    Returns:
        All differences.

    Raises:
        ConfigurationError: no such preset.
    """
    found: Differences = {}
    folder = package_files("unrolled") / "presets"
    known = {path.name.removesuffix(".toml"): path for path in folder.iterdir() if path.name.endswith(".toml")}
    for name in presets:
        if name not in known:
            raise ConfigurationError(f"`{name}` is not a preset; {nearest(name, known)}")
        found = merge(found, read_toml(Path(str(known[name]))))
    return merge(found, combine(files, overrides))
