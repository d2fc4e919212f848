"""Recipes: YAML files of six sections that say all there is to say about one training run.

    base: medmnist/_base           # optional: another recipe, whose values this one overrides
    model: {family: resnet, ...}   # ModelSettings
    data: {source: ..., ...}       # DataSettings
    processing: {...}              # ProcessingSettings
    optimisation: {...}            # OptimisationSettings
    training: {...}                # transformers.TrainingArguments
    evaluation: {...}              # EvaluationSettings

Every section is read by transformers' HfArgumentParser; `key=value` overrides any value, by its full name
(`training.learning_rate=1e-4`, `model.config.head_decay=0`) or by its own where no other section has it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import torch
import yaml
from transformers import HfArgumentParser, TrainingArguments

from hf_mhex.data.settings import DataSettings, bounded
from hf_mhex.training.settings import (
    EvaluationSettings,
    ModelSettings,
    OptimisationSettings,
    ProcessingSettings,
    needs_a_measure,
)

FOLDER = Path(__file__).with_name("recipes")
SECTIONS = {
    "model": ModelSettings,
    "data": DataSettings,
    "processing": ProcessingSettings,
    "optimisation": OptimisationSettings,
    "evaluation": EvaluationSettings,
    "training": TrainingArguments,
}
LEAST = {  # what Trainer would pass over without a word
    "num_train_epochs": 1e-6,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-12,
    "weight_decay": 0,
}
OWN_FOLDERS = ("output_dir", "resume_from_checkpoint", "do_train", "do_eval", "do_predict", "label_names")


@dataclass
class Recipe:
    """A parsed recipe. `training` stays a dict until a run makes its TrainingArguments, which start a device."""

    name: str
    model: ModelSettings
    data: DataSettings
    processing: ProcessingSettings
    optimisation: OptimisationSettings
    evaluation: EvaluationSettings
    training: dict = field(default_factory=dict)

    def sections(self) -> dict:
        """The recipe as plain dicts, for YAML and result rows; what is at its default is left out."""
        found = {}
        for name, kind in SECTIONS.items():
            given = getattr(self, name)
            if name != "training":
                given = {k: v for k, v in vars(given).items() if v != getattr(kind, k, dataclasses.MISSING)}
            found[name] = dict(given)
        return {name: values for name, values in found.items() if values}

    def training_arguments(self, folder: Path) -> TrainingArguments:
        """The run's TrainingArguments, with checkpoints in `folder`."""
        fixed = {"output_dir": str(folder), "remove_unused_columns": False}
        pinned = torch.accelerator.is_available() and not self.training.get("use_cpu")
        usual = {
            "report_to": "none",
            "disable_tqdm": False,
            "dataloader_pin_memory": pinned,
            "ddp_find_unused_parameters": False,
        }
        given = {**usual, **self.training, **fixed}
        return HfArgumentParser(TrainingArguments).parse_dict(given)[0]


class Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number and `no` is a word: Trainer has strategies of that name."""


BOOL, FLOAT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:float"
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != BOOL]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(BOOL, re.compile(r"^([Tt]rue|[Ff]alse)$"), list("tTfF"))
Loader.add_implicit_resolver(FLOAT, re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))


def recipe_names() -> list[str]:
    """The recipes that come with the package, as `load_recipe` takes them; those with `_` are bases of others."""
    shown = (path for path in FOLDER.rglob("*.yaml") if not path.name.startswith("_"))
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in shown)


def load_recipe(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe of a file or of that name in the package, with `key=value` overrides.

    Raises ValueError for a name that is not there, a section or key that no recipe has, or a value that cannot be.
    """
    values = read_values(name)
    for override in overrides:
        set_value(values, override)
    return parse(Path(name).stem if Path(name).suffix else name, values)


def read_values(name: str) -> dict:
    """The sections of a recipe's file over those of its `base`."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"RECIPE {name!r} is no YAML file and none of the package's: {', '.join(recipe_names())}.")
    values = read_yaml(path.read_text(encoding="utf-8"), f"RECIPE {name!r}") or {}
    if not isinstance(values, dict):
        raise ValueError(f"RECIPE {name!r} must hold the sections {', '.join(SECTIONS)}, got {type(values).__name__}.")
    base = values.pop("base", None)
    values = {section: {} if given is None else given for section, given in values.items()}
    for section, given in values.items():
        if not isinstance(given, dict):
            raise ValueError(f"RECIPE {name!r}: {section} must be a section of keys and values, got {given!r}.")
    if base is None:
        return values
    beside = path.parent / f"{base}.yaml"
    return merge(read_values(str(beside) if beside.is_file() else base), values)


def merge(under: dict, over: dict) -> dict:
    """`under` with the values of `over`, dict by dict."""
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def set_value(values: dict, override: str) -> None:
    """Put one `key=value` where it belongs."""
    key, equals, text = override.partition("=")
    if not equals:
        raise ValueError(f"overrides are key=value, got {override!r}.")
    section, *path = key.split(".")
    if section not in SECTIONS:
        path = [section, *path]
        homes = [name for name, kind in SECTIONS.items() if section in {f.name for f in dataclasses.fields(kind)}]
        if len(homes) == 2 and homes[1] == "training":  # a recipe's own keys go before those of TrainingArguments
            homes = homes[:1]
        if len(homes) != 1:
            close = get_close_matches(
                section, {f.name for kind in SECTIONS.values() for f in dataclasses.fields(kind)}, 1
            )
            unknown = "is no key of a recipe" + (f", the closest is {close[0]!r}" if close else "")
            where = f"is in {' and '.join(homes)}: write {homes[0]}.{key}" if homes else unknown
            raise ValueError(f"{key!r} {where} (sections are {', '.join(SECTIONS)}).")
        section = homes[0]
    if not path:
        raise ValueError(f"{override!r} names a whole section; write {section}.key=value.")
    place = values.setdefault(section, {})
    for part in path[:-1]:
        if not isinstance(place.get(part), dict):
            place[part] = {}
        place = place[part]
    place[path[-1]] = read_yaml(text, f"override {override!r}")


def read_yaml(text: str, what: str):
    """The value of a YAML text; ValueError says in one line where it is none."""
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise ValueError(f"{what} is no YAML{place}: {problem or 'a character that it cannot hold'}.") from error


def parse(name: str, values: dict) -> Recipe:
    """Sections as dataclasses; ValueError names the section and the key that do not fit."""
    unknown = sorted(set(values) - set(SECTIONS))
    if unknown:
        raise ValueError(f"recipe {name!r} has the unknown sections {unknown}; there are {', '.join(SECTIONS)}.")
    parts = {}
    for section, kind in SECTIONS.items():
        given = values.get(section) or {}
        check_keys(f"recipe {name!r}: {section}", given, kind)
        if kind is not TrainingArguments:
            parts[section] = HfArgumentParser(kind).parse_dict(given)[0]
            continue
        taken = sorted(set(given) & set(OWN_FOLDERS))
        if taken:
            raise ValueError(f"training.{taken[0]} is set by the run itself; use --output and --resume.")
        parts[section] = given
    smoothing = parts["training"].get("label_smoothing_factor")
    if smoothing:
        raise ValueError(
            f"training.label_smoothing_factor={smoothing} would replace the model's loss, and its blocks would go "
            f"untaught; write model.config.label_smoothing={smoothing}, which smooths the loss of every head."
        )
    check_training(parts["training"])
    check_early_stop(parts["optimisation"], parts["training"])
    return Recipe(name, **parts)


def check_keys(what: str, given: dict, kind: type) -> None:
    """ValueError for a key that a section's dataclass lacks."""
    known = [f.name for f in dataclasses.fields(kind) if f.init]
    wrong = sorted(set(given) - set(known), key=str)
    if wrong:
        close = get_close_matches(str(wrong[0]), known, n=1)
        raise ValueError(f"{what} has no key {wrong[0]!r}{f'; the closest is {close[0]!r}' if close else ''}.")


def check_training(given: dict) -> None:
    """ValueError or TypeError for a training that would end without a step, or learn nothing, and say neither."""
    for name, least in LEAST.items():
        if name in given and not (name == "num_train_epochs" and given.get("max_steps", -1) > 0):
            bounded(f"training.{name}", given[name], least)


def check_early_stop(optimisation: OptimisationSettings, given: dict) -> None:
    """ValueError for an early stop without evaluations, or without a metric that says which is the best."""
    judged = str(given.get("eval_strategy") or "no") != "no"
    by = given.get("metric_for_best_model") or given.get("load_best_model_at_end")  # which takes the loss by default
    if optimisation.early_stopping_patience is not None and not (judged and by):
        raise ValueError(needs_a_measure(optimisation.early_stopping_patience))
