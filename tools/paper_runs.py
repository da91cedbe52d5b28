"""Runs of `hypermoe finetune` as tools/paper_table needs them: what was trained, on what, and what came of it."""

import json
import os
import re

from script_support import BAD_DATA, Failure, read

# The task's first metric, under its name in metrics.jsonl; whether it is a perplexity, of which less is better.
METRICS = {
    "cola": "matthews", "sst2": "accuracy", "stsb": "pearson", "mrpc": "accuracy", "qqp": "accuracy", "mnli": "accuracy",
    "qnli": "accuracy", "rte": "accuracy", "boolq": "accuracy", "cb": "accuracy", "multirc": "f1", "copa": "accuracy",
    "record": "exact_match", "superglue_rte": "accuracy", "wic": "accuracy", "wsc": "accuracy", "squad": "exact_match",
    "xsum": "rouge2", "cnn_dailymail": "rouge2", "wikitext": "perplexity",
}
LOWER_IS_BETTER = ("wikitext",)


def fields(text):
    """`section.name` -> the last value that a configuration in the form of config.textproto gives it; words without quotes."""
    values, sections = {}, []
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if line.endswith("{"):
            sections.append(line[:-1].strip())
        elif line == "}":
            sections.pop()
        elif ":" in line:
            name, value = line.split(":", 1)
            values[".".join([*sections, name])] = value.strip().strip('"')
    return values


def lines_of(path):
    text = read(path).decode("utf-8", "replace")
    lines = []
    for number, line in enumerate(text.split("\n")[:-1], 1):
        try:
            lines.append(json.loads(line))
            lines[-1]["kind"], lines[-1]["step"]  # noqa: B018
        except (ValueError, KeyError, TypeError):
            raise Failure(BAD_DATA, f"{path}, line {number}: expected a JSON object with kind and step") from None
    return lines


def newest_step(folder):
    """Of the run's newest checkpoint, 0 if it has none."""
    try:
        with open(os.path.join(folder, "checkpoints", "latest"), encoding="utf-8") as file:
            return int(re.sub(r"\D", "", file.read()) or 0)
    except (OSError, ValueError):
        return 0


def outcome(validations, metric, task, best):
    """The line of metrics.jsonl that counts."""
    if not best:
        return validations[-1]
    sign = -1 if task in LOWER_IS_BETTER else 1
    return max(validations, key=lambda line: (sign * line[metric], -line["step"]))


def read_run(folder):
    """None of a run that is not of a task; {"path": ..., "value": None} of one that is not finished: a finished one ends with a
    validation of the step that its newest checkpoint holds."""
    config = fields(read(os.path.join(folder, "config.textproto")).decode("utf-8", "replace"))
    task = config.get("data.task", "")
    if not task:
        return None
    if task not in METRICS:
        raise Failure(BAD_DATA, f"{folder}/config.textproto: data.task is {task}: expected one of {', '.join(METRICS)}")
    run = {"path": folder, "task": task, "kind": config.get("model.kind", "hyper"), "seed": int(config.get("runtime.seed", 1)),
           "experts": int(config.get("model.num_experts", 8)), "condition": config.get("hyper.condition", "unselected"),
           "value": None}
    path = os.path.join(folder, "metrics.jsonl")
    lines = lines_of(path) if os.path.exists(path) else []
    if not lines or lines[-1]["kind"] != "validation" or lines[-1]["step"] != newest_step(folder):
        return run
    metric = METRICS[task]
    validations = [line for line in lines if line["kind"] == "validation"]
    if any(not isinstance(line.get(metric), (int, float)) for line in validations):
        raise Failure(BAD_DATA, f"{path}: a validation has no {metric}, which {task} is measured by")
    run["value"] = outcome(validations, metric, task, config.get("train.keep_best") == "true")[metric]
    return run


def run_folders(folders):
    for folder in folders:
        if os.path.exists(os.path.join(folder, "config.textproto")):
            yield folder
            continue
        if not os.path.isdir(folder):
            raise Failure(BAD_DATA, f"{folder} is no folder: give run folders, or folders that hold them")
        for name in sorted(os.listdir(folder)):
            if os.path.exists(os.path.join(folder, name, "config.textproto")):
                yield os.path.join(folder, name)


def read_runs(folders):
    """Finished runs of tasks, and the paths of those that are not finished."""
    runs = [run for run in map(read_run, dict.fromkeys(run_folders(folders))) if run is not None]
    return [run for run in runs if run["value"] is not None], [run["path"] for run in runs if run["value"] is None]
