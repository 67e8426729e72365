"""The configuration of a run: saved, resumed with, and what its model is rebuilt from."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from aevb.cli.files import write_text
from aevb.cli.parser import Parser
from aevb.cli.runs import CONFIG
from aevb.cli.trust import guarded, read_config, refuse_links, remember
from aevb.data.locations import data_root
from aevb.data.sources import DATASETS

__all__ = ["NEEDED", "reopen", "with_saved_config", "write_config"]

# Flags that may differ between the parts of one run; with any other, it would be another run.
_CHANGEABLE = {
    "compile",
    "data_root",
    "device",
    "epochs",
    "limit",
    "log_every",
    "num_samples",
    "patience",
}
# What a run is rebuilt from; nothing else of its configuration is made into objects.
NEEDED = ("data", "data_root", "binarize", "data_kind", "table", "model", "seed")


def with_saved_config(command: str, words: list[str]) -> list[str]:
    """Put the configuration of the run to be resumed in front of the flags that change it."""
    if command != "train":
        return words
    for position, word in enumerate(words):
        flag, _, value = word.partition("=")
        if flag == "--resume" and (value or len(words) > position + 1):
            folder = Path(value or words[position + 1])
            saved = folder / CONFIG
            if not saved.is_file():
                raise FileNotFoundError(f"--resume: {folder} is no run folder: it has no {CONFIG}")
            refuse_links(folder)
            return ["--config", str(saved), *words]
    return words


def write_config(parser: Parser, settings: Namespace, path: Path) -> None:
    """Save the resolved configuration so that it works from any folder."""
    saved = settings.clone()
    saved.resume = saved.out = None
    if saved.data_root is not None or saved.data in DATASETS:
        saved.data_root = str(data_root(saved.data_root).resolve())
    if saved.data not in DATASETS and Path(saved.data).exists():
        saved.data = str(Path(saved.data).resolve())
    if settings.resume is not None:
        config = read_config(path, parser.trusted)
        with guarded(config.trusted):
            _refuse_changes(parser.parse_object(config.content), saved, path.parent)
    write_text(path, parser.dump(saved, skip_unset=False))
    remember(path)


def _refuse_changes(old: Namespace, new: Namespace, folder: Path) -> None:
    before, after = (dict(settings.items()) for settings in (old, new))
    for key in before | after:
        known = key in _CHANGEABLE or key in ("json", "config", "trust")
        if not known and before.get(key) != after.get(key):
            flag = key.replace(".init_args", "").removesuffix(".class_path")
            raise ValueError(
                f"--{flag}: the run in {folder} was started with {before.get(key)!r}; "
                f"got {after.get(key)!r}"
            )


def reopen(parser: Parser, folder: Path) -> Any:
    """What a run folder is rebuilt from: the part of its configuration that evaluation needs."""
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no run folder: it has no {CONFIG}")
    refuse_links(folder)
    config = read_config(path, parser.trusted)
    with guarded(config.trusted):
        content = {
            key: value for key, value in config.content.items() if key.partition(".")[0] in NEEDED
        }
        settings = parser.parse_object(content)
        return parser.instantiate(Namespace({key: settings[key] for key in NEEDED}))
