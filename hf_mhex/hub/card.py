"""Model cards: facts read from the model's files and its results, put into the template."""

from __future__ import annotations

import ast
import json
import re
from math import prod
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import validate_repo_id
from safetensors import safe_open

from hf_mhex.escaping import code_markdown, escaped_markdown
from hf_mhex.families import Kind, family_of
from hf_mhex.loading import reading_weights, source_config
from hf_mhex.writing import make_folder, whole, write_whole

SHIPPED = Path(__file__).parents[1] / "model_cards"
if not SHIPPED.is_dir():  # in the checkout
    SHIPPED = Path(__file__).parents[2] / "model_cards"
TEMPLATE = "card.md.jinja"
MEASURED = ("test_rows", "accuracy", "majority_class", "completeness_error", "map_share_of_time")
MAJORITY = "share of the most frequent label"
SHARED = ("seed", "command", "commit", "environment")  # of all models of a results file
ABOUT = {  # what nobody but the author knows; card.json beside the weights says it
    "intended_use": "Whatever its training data resemble.",
    "limits": "",
    "training": "Not described.",
    "dataset_name": "its dataset",
    "dataset_type": "unnamed",
}


def card_facts(folder: str | PathLike) -> dict:
    """What a saved model's files say: family, labels, settings, and numbers of parameters (of the weights' headers).

    Raises ValueError for a model of no family, OSError for weights that cannot be read.
    """
    folder = Path(folder)
    family = family_of(source_config(folder).get("model_type"))
    config = family.config.from_pretrained(folder)
    shapes: dict[str, list[int]] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        with reading_weights(path), safe_open(path, framework="pt") as file:
            shapes |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    counts = {name: prod(shape) for name, shape in shapes.items() if not name.endswith(buffers)}
    made_from = f"timm's {config.architecture}" if family.library == "timm" else None
    return {
        "family": family.model_type,
        "architecture": made_from or f"{family.label} of width {config.hidden_size}",
        "task": family.input.task,
        "saliency_task": family.input.saliency_task,
        "labels": [config.id2label[index] for index in range(config.num_labels)],
        "gate_scale": config.gate_scale,
        "head_decay": config.head_decay,
        "instance_share": config.instance_share,
        "blocks": sum(name.startswith("heads.") for name in counts),
        "parameters": sum(counts.values()),
        "gate_parameters": sum(count for name, count in counts.items() if ".gate." in name),
        "head_parameters": sum(count for name, count in counts.items() if name.startswith("heads.")),
    }


def render_card(
    facts: dict, about: dict, record: dict | None, repo_id: str, revision: str, picture: str | None = None
) -> str:
    """The card's text. Every number in it comes from `facts` (`card_facts`) or `record`.

    Args:
        about: what only the author knows: title, summary, license, base_model, datasets, dataset_name, dataset_type,
            language, intended_use, limits, training, picture_text, widget (inputs for the Hub's page, as it takes
            them; of a text model one sentence if left out). A license that nobody named is not stated.
        record: one model's row of a results file, as `record_of_folder` gives it; None leaves the results out. With
            `plain_twin` it also says how the same network without gates and heads does.
        revision: what the snippet pins, a tag or a commit.
        picture: path in the repository of a picture made from the model's own predictions.

    The author's words are Markdown, and stay as they are; whatever else has a name is shown and not obeyed. Raises
    ValueError for a repo_id that is none.
    """
    validate_repo_id(repo_id)
    name = repo_id.split("/")[-1]
    about = {"title": escaped_markdown(name), "summary": "", **ABOUT, **about}
    results, prediction = [], predicted(record) if record else {}
    if record:
        shared = {
            "task_type": facts["task"],
            "dataset_type": about["dataset_type"],
            "dataset_name": about["dataset_name"],
            "dataset_split": "test",
        }
        figures = {name: (name, value) for name, value in prediction.items() if name != MAJORITY}
        if "completeness_error" in record:
            figures["Completeness error of the maps, largest"] = ("completeness_error", record["completeness_error"])
        for row in record.get("explanation", ()):
            kind = re.sub(r"[^a-z0-9]+", "_", row["measure"].lower()).strip("_")
            figures[row["measure"]] = (kind, row["map"]["estimate"])
        results = [
            EvalResult(**shared, metric_type=kind, metric_name=capital(title.replace("_", " ")), metric_value=value)
            for title, (kind, value) in figures.items()
        ]
    data = ModelCardData(
        license=about.get("license"),
        language=about.get("language"),
        base_model=about.get("base_model"),
        datasets=about.get("datasets"),
        library_name="transformers",
        pipeline_tag=facts["task"],
        tags=["mhex", "explainability", "saliency", "attribution", "custom_code", facts["saliency_task"]],
        metrics=[name for name in prediction if name != MAJORITY] or None,
        widget=about.get("widget") or widget_of(family_of(facts["family"]).input),
        model_name=name if results else None,
        eval_results=results or None,
    )
    text = about.get("picture_text", f"Predictions of {escaped_markdown(name)} with their saliency.")
    values = {**about, **in_markdown(facts), "record": in_markdown(record), "picture": picture, "revision": revision}
    values |= {"repo_literal": json.dumps(repo_id), "revision_literal": json.dumps(revision)}
    values["prediction"] = {escaped_markdown(name.replace("_", " ")): value for name, value in prediction.items()}
    family = family_of(facts["family"])
    values |= {"picture_text": text, "kind": family.input.name, "example": family.input.example}
    values["rollout"] = family.body.can_roll_out
    card = str(ModelCard.from_template(data, template_path=str(SHIPPED / TEMPLATE), **values)).rstrip() + "\n"
    return re.sub(r"\n{3,}", "\n\n", card)  # parts that are left out leave their lines


def capital(words: str) -> str:
    """The words with a capital at their beginning."""
    return words[:1].upper() + words[1:]


def widget_of(kind: Kind) -> list[dict] | None:
    """An input for the Hub's page to try a model of texts with; pictures and signals would have to lie somewhere."""
    return [{"text": ast.literal_eval(kind.example)}] if kind.name == "text" else None


def in_markdown(values):
    """Values of JSON with every text in them, names too, written for Markdown; commands and commits as code."""
    if isinstance(values, dict):
        code = {name: code_markdown(values[name]) for name in ("command", "commit") if values.get(name)}
        return {escaped_markdown(name): in_markdown(value) for name, value in values.items()} | code
    if isinstance(values, list):
        return [in_markdown(value) for value in values]
    return escaped_markdown(values) if isinstance(values, str) else values


def predicted(record: dict) -> dict[str, float]:
    """What a record says of the predictions, by name."""
    return record.get("prediction") or {"accuracy": record["accuracy"], MAJORITY: record["majority_class"]}


def card_of_folder(folder: str | PathLike, repo_id: str, revision: str) -> str:
    """The card of a saved folder, from what lies in it: card.json (the author's words), results.json, saliency.png.

    A model of the demo takes the words that this package has for it, and the demo's results from the folder above.
    """
    folder = Path(folder)
    picture = "saliency.png" if (folder / "saliency.png").is_file() else None
    return render_card(card_facts(folder), about_of(folder), record_of_folder(folder), repo_id, revision, picture)


def write_card(
    folder: Path, repo_id: str, revision: str, items=(), output: Path | None = None, device=None
) -> list[Path]:
    """Write the card, and a picture of the model's answers to `items` where there are any; return the paths.

    Without items a saliency.png that is there already stays in the card.

    Args:
        items: PIL images, image files or texts. output: None for the model's own folder; another one also gets
            facts.json and results.json, what the card was rendered from. device: where the model answers; the
            processor if None.
    """
    from hf_mhex.pictures.cards import saliency_picture

    output = folder if output is None else output
    make_folder(output)
    facts, about, record = card_facts(folder), about_of(folder), record_of_folder(folder)
    written = [output / "README.md"]
    if items:
        written.append(output / "saliency.png")
        with whole(written[-1]) as place:
            saliency_picture(folder, items, device).save(place)
    picture = "saliency.png" if (output / "saliency.png").is_file() else None
    write_whole(written[0], render_card(facts, about, record, repo_id, revision, picture))
    if output.resolve() != folder.resolve():
        sources = {"facts.json": {**facts, "repo_id": repo_id, "revision": revision}, "results.json": record}
        for name, values in sources.items():
            written.append(output / name)
            write_whole(written[-1], json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    return written


def about_of(folder: Path) -> dict:
    """The author's words on a model: card.json in its folder, or the package's about.json for that folder's name.

    What they leave out of `base_model`, `datasets`, `dataset_type` and `dataset_name` is that of the run by which `mhex
    train` made the model, where the Hub has it.
    """
    for path in (folder / "card.json", SHIPPED / folder.resolve().name / "about.json"):
        if path.is_file():
            return origins_of(folder) | read_json(path.parent, path.name)
    return origins_of(folder)


def read_json(folder: Path, name: str) -> Any:
    """What a JSON file of a folder holds; ValueError, naming both, where there is none."""
    path = folder / name
    if not path.is_file():
        raise ValueError(f"folder={fspath(folder)!r} has no {name}; give a folder that save_pretrained wrote.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"folder={fspath(folder)!r}: {name} is no JSON ({error}).") from error


def read_beside(path: Path) -> dict:
    """The JSON object in a file outside a model's folder, which may be anybody's; {} where there is none."""
    try:
        return as_object(read_json(path.parent, path.name))
    except (OSError, ValueError):
        return {}


def as_object(found) -> dict:
    """A JSON object as it is, {} for another value."""
    return found if isinstance(found, dict) else {}


def origins_of(folder: Path) -> dict:
    """The base model and the data set that `mhex train` took from the Hub, by the result.json beside a model."""
    return as_object(read_run(folder).get("from_hub"))


def record_of_folder(folder: Path) -> dict | None:
    """What was measured of a saved model, or None where nothing is known.

    Read from results.json in its folder or, under the folder's name, in the one above, as `mhex demo` writes it
    (test_rows, accuracy, majority_class, completeness_error, map_share_of_time, and explanation, of
    `hf_mhex.benchmarks.explanations.summarise_quality`); or from the result.json above that `mhex train` writes
    (test_rows, and prediction: its metrics). Where they are known, recipe, seed, command, commit and environment
    stand in both.
    """
    folder = folder.resolve()
    own = as_object(read_json(folder, "results.json") if (folder / "results.json").is_file() else None)
    above = read_beside(folder.parent / "results.json")
    for record in (row_of(own, folder.name) or own, row_of(above, folder.name)):
        if isinstance(record.get("prediction"), dict) or set(MEASURED) <= record.keys():
            return record
    row = read_run(folder)
    return record_of_training(row, plain_result(folder, row))


def row_of(found: dict, name: str) -> dict:
    """A model's row of a results file of several, with what they share; {} where it has none."""
    models = found.get("models")
    rows = map(as_object, models if isinstance(models, list) else ())
    row = next((row for row in rows if row.get("model") == name), {})
    return row and {key: found[key] for key in SHARED if key in found} | row


def read_run(folder: Path) -> dict:
    """What `mhex train` tells of the run that made a model: RUN/result.json of RUN/model; {} for another folder."""
    folder = folder.resolve()
    return read_beside(folder.parent / "result.json") if folder.name == "model" else {}


def plain_result(folder: Path, row: dict) -> dict | None:
    """The result row of the plain twin, RUN-plain beside the folder RUN, by the same recipe, rows and seed.

    Args:
        folder: RUN/model. row: of its run.
    """
    run = folder.resolve().parent
    found = read_beside(run.with_name(f"{run.name}-plain") / "result.json")
    alike = all(found.get(name) == row.get(name) for name in ("recipe", "seed", "rows"))
    return found if alike and found.get("kind") == "plain" and isinstance(found.get("test"), dict) else None


def beside_plain(row: dict, plain: dict) -> dict:
    """The test metrics of one run beside those of its plain twin's; accuracies with Wilson's interval."""
    from hf_mhex.evaluation.intervals import share_interval

    def figure(value: float, name: str) -> dict:
        if name != "accuracy":
            return {"estimate": value}
        found = share_interval(value, row["rows"]["test"])
        return {"estimate": value, "low": found.low, "high": found.high}

    names = [name for name, value in row["test"].items() if name in plain["test"] and not re.search("loss|block", name)]
    measures = [
        {"measure": name, "own": figure(row["test"][name], name), "plain": figure(plain["test"][name], name)}
        for name in names
    ]
    return {"by": f"the recipe {row['recipe']}, with the same rows", "seeds": 1, "measures": measures}


def record_of_training(row: dict, plain: dict | None = None) -> dict | None:
    """The row of a run by a recipe in the words of `record_of_folder`; None for a run without test rows, and no run.

    Args:
        plain: the row of its plain twin.
    """
    test = as_object(row.get("test"))
    prediction = {name: value for name, value in test.items() if not re.search("loss|block", name)}
    if not (prediction and {"recipe", "seed", "versions"} <= row.keys() and "test" in as_object(row.get("rows"))):
        return None
    counts = {f"{name} rows": count for name, count in row["rows"].items() if name != "test"}
    kept = {"test_rows": row["rows"]["test"], "prediction": prediction, "seed": row["seed"]}
    kept |= {"part_removal": row["part_removal"]} if row.get("part_removal") else {}
    kept |= {"plain_twin": beside_plain(row, plain)} if plain else {}
    kept |= {"recipe": {"recipe": row["recipe"], **counts}, "command": f"mhex train {row['recipe']}"}
    return kept | {"environment": row["versions"]}
