"""Reads the metrics of runs (runtime/train_line.h says what a line holds) and thins them for drawing."""

import json
import math
import os

BAD_DATA, NO_SERVICE, BAD_PROGRAM, IO = 65, 69, 70, 74  # exit codes, as in the README

PHASES = ("data", "forward", "backward", "reduce", "optimizer")
MAX_VALUES = 4096  # of a line's lists: layers, experts


class ReportError(Exception):
    """Ends the program with one line and this exit code."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Run:
    """One run folder: its lines of both kinds in the order of their steps, and its configuration's text."""

    def __init__(self, folder, name, train, validation, config):
        self.folder, self.name, self.train, self.validation, self.config = folder, name, train, validation, config
        self.batch_tokens = train[-1]["tokens"] / train[-1]["step"]

    def series(self, value):
        """(step, value(line)) of every training line for which it is not None."""
        pairs = ((line["step"], value(line)) for line in self.train)
        return [(step, number) for step, number in pairs if number is not None]

    def field(self, name):
        return self.series(lambda line: line.get(name))

    def num_layers(self):
        return len(self.train[-1].get("expert_load") or [])

    def tokens_at(self, step):
        return step * self.batch_tokens


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_table(value):
    """Tokens by layer and expert."""
    return (isinstance(value, list) and len(value) <= MAX_VALUES
            and all(isinstance(row, list) and 0 < len(row) <= MAX_VALUES and all(is_number(n) and n >= 0 for n in row)
                    for row in value))


def is_list(value):
    return isinstance(value, list) and len(value) <= MAX_VALUES and all(is_number(n) for n in value)


def is_seconds(value):
    return isinstance(value, dict) and all(is_number(value.get(phase)) for phase in PHASES + ("all_to_all",))


REQUIRED = {
    "train": {"loss": is_number, "tokens": is_number, "tokens_per_second": is_number, "seconds": is_seconds},
    "validation": {"loss": is_number, "perplexity": is_number},
}
# null stands for a number that was not known.
OPTIONAL = {
    "balance_loss": is_number, "grad_norm": is_number, "learning_rate": is_number, "expert_load": is_table,
    "expert_load_max_over_mean": is_number, "bytes_sent": is_number, "mfu": is_number, "memory_bytes": is_number,
    "dropped_tokens": is_list, "hyper_share": is_number,
}


def check_line(line, place, last_step):
    if not isinstance(line, dict) or line.get("kind") not in REQUIRED:
        raise ReportError(BAD_DATA, f"{place} is not an object of kind train or validation: "
                                    "give the folder of a run that `hypermoe pretrain` made")
    step = line.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or step < 1:
        raise ReportError(BAD_DATA, f"{place}: step is {json.dumps(step)}, expected an integer from 1")
    if step < last_step:
        raise ReportError(BAD_DATA, f"{place}: step {step} comes after step {last_step}, expected steps that rise")
    for field, good in REQUIRED[line["kind"]].items():
        if not good(line.get(field)):
            raise ReportError(BAD_DATA, f"{place}: {field} is {json.dumps(line.get(field))[:60]}, which is not what a "
                                        f"{line['kind']} line holds there")
    for field, good in OPTIONAL.items():
        if line.get(field) is not None and not good(line[field]):
            raise ReportError(BAD_DATA, f"{place}: {field} is {json.dumps(line[field])[:60]}, which is not what it holds")


def parse_lines(text, path):
    """The objects of a metrics.jsonl. A last line that is torn (the run was stopped in it) is left out."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    objects, last_step = [], 0
    for number, content in enumerate(lines, start=1):
        place = f"{path}, line {number},"
        try:
            line = json.loads(content)
        except ValueError:
            if number == len(lines):
                break
            raise ReportError(BAD_DATA, f"{place} is not JSON: {content[:60]!r}; the file is damaged") from None
        check_line(line, place, last_step)
        last_step = line["step"]
        objects.append(line)
    return objects


def read_file(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise ReportError(IO, f"{path} could not be read: {error.strerror}; give the folder of a run") from None
    except UnicodeDecodeError:
        raise ReportError(BAD_DATA, f"{path} is not UTF-8 text: the file is damaged") from None


def check_layers(train, path):
    """All lines must tell of the same experts."""
    shapes = {tuple(len(row) for row in line.get("expert_load") or []) for line in train}
    if len(shapes) != 1:
        raise ReportError(BAD_DATA, f"{path}: expert_load has other layers or experts in some lines: the file mixes runs")


def read_run(folder, name):
    path = os.path.join(folder, "metrics.jsonl")
    objects = parse_lines(read_file(path), path)
    train = [line for line in objects if line["kind"] == "train"]
    if not train:
        raise ReportError(BAD_DATA, f"{path} has no complete training line yet: let the run take a step first")
    check_layers(train, path)
    config = os.path.join(folder, "config.textproto")
    return Run(folder, name, train, [line for line in objects if line["kind"] == "validation"],
               read_file(config) if os.path.exists(config) else "")


def read_runs(folders):
    """Runs under the names of their folders, or the whole paths where those are not different."""
    names = [os.path.basename(os.path.abspath(folder)) for folder in folders]
    if len(set(names)) < len(names):
        names = [os.path.normpath(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise ReportError(64, "a run is given twice: name each folder once")
    return [read_run(folder, name) for folder, name in zip(folders, names)]


def dropped_share(line):
    """Of the places of tokens in sparse layers, those for which the selected expert had no room; None if not counted."""
    dropped = line.get("dropped_tokens")
    return sum(dropped) * line["step"] / (len(dropped) * line["tokens"]) if dropped else None


def thin(pairs, limit):
    """At most `limit` points: means over groups of neighbours, in x and in y."""
    group = max(1, math.ceil(len(pairs) / limit))
    means = []
    for begin in range(0, len(pairs), group):
        part = pairs[begin:begin + group]
        means.append(tuple(sum(column) / len(part) for column in zip(*part)))
    return means
