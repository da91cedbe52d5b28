#!/usr/bin/env python3
"""`hypermoe inspect` as a user has it: a short run, its report, and what other programs make of the files.

    tests/launch/inspection.py BUILD_FOLDER SOURCE_FOLDER
"""

import csv
import html.parser
import json
import os
import shutil
import sys
import tempfile
import xml.etree.ElementTree as xml

import job

SVG = "{http://www.w3.org/2000/svg}"


def run(source, build, folder, ranks, *arguments, codes=(0,)):
    """The last line of stdout, as JSON where it is."""
    ended = job.start(source, ranks, [os.path.join(build, "hypermoe"), *arguments], folder)
    if ended.code not in codes:
        raise RuntimeError(f"{' '.join(arguments)}: exit code {ended.code}: {ended.stderr}")
    last = (ended.stdout.splitlines() or [""])[-1]
    return json.loads(last) if last.startswith("{") else last


def numbers(text):
    return [float(word) for word in text.split()]


def data_of(picture):
    """All numbers that a picture holds beside its shapes."""
    found = []
    for element in picture.iter():
        for name, value in element.attrib.items():
            if name in ("data-x", "data-y", "data-values", "data-value", "data-low", "data-high"):
                found += numbers(value)
    return found


def check_picture(path):
    wrong = []
    picture = xml.parse(path).getroot()
    texts = [element.text for element in picture.iter(SVG + "text")]
    if picture.tag != SVG + "svg" or not picture.get("aria-label"):
        wrong.append("no picture with a name")
    words = [text for text in texts if text and any(letter.isalpha() for letter in text)]
    if len(words) < 2:
        wrong.append(f"no two axes with labels: {texts}")
    if not data_of(picture):
        wrong.append("no data")
    return [f"{path}: {text}" for text in wrong]


class Page(html.parser.HTMLParser):
    """Everything that a browser would fetch, and how many pictures there are."""

    def __init__(self):
        super().__init__()
        self.fetched, self.pictures = [], 0

    def handle_starttag(self, tag, attributes):
        self.pictures += tag == "svg"
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "srcset", "data") or "url(" in (value or ""):
                self.fetched.append((tag, name, value))


def check_page(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    page = Page()
    page.feed(text)
    wrong = [f"{path} fetches {page.fetched}"] if page.fetched or "@import" in text or "url(" in text else []
    if page.pictures < 8:
        wrong.append(f"{path} shows {page.pictures} pictures")
    return wrong


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def check_numbers(folder, figures):
    """Tables, pictures and the line of figures say the same."""
    wrong = []
    parameters = sum(int(row["parameters"]) for row in table(os.path.join(folder, "parameters.csv")))
    if parameters != figures["parameters"]:
        wrong.append(f"parameters: {parameters} in the table, {figures['parameters']} in the line")
    picture = xml.parse(os.path.join(folder, "recorded_load.svg")).getroot()
    loads = [float(row["load_over_mean"]) for row in table(os.path.join(folder, "recorded_load.csv"))]
    if data_of(picture) != loads:
        wrong.append("recorded_load.svg and .csv differ")
    for row, layer in zip(table(os.path.join(folder, "embeddings_correlations.csv")), figures["layers"]):
        if float(row["distance_pearson"]) != layer["distance_correlation"]:
            wrong.append(f"correlation of block {layer['block']}: {row} and {layer}")
    choices = sum(float(row["choices"]) for row in table(os.path.join(folder, "measured_layers.csv")))
    if choices <= 0 or figures["recorded"]["last_steps"] != 4 or figures["measured"]["hyper_share"] is None:
        wrong.append(f"measured {choices} choices, figures {figures}")
    return wrong


def contents(folder):
    return {name: open(os.path.join(folder, name), "rb").read() for name in sorted(os.listdir(folder))}


def main():
    build, source = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    folder = tempfile.mkdtemp(prefix="hypermoe_inspection_")

    def hypermoe(ranks, *arguments, codes=(0,)):
        return run(source, build, folder, ranks, *arguments, codes=codes)

    try:
        hypermoe(1, "prepare", "--input", os.path.join(source, "README.md"), "--tokenizer", "byte", "--output", "text")
        hypermoe(2, "pretrain", "--config", os.path.join(source, "configs/debug.textproto"), "--run_dir", "run", "--set",
                 "data.train=text", "--set", "train.steps=4", "--set", "optimizer.warmup_steps=1")
        figures = hypermoe(1, "inspect", "run", "--data", "text", "--windows", "12", "--set", "runtime.dtype=float64")
        report = os.path.join(folder, "run", "inspect")
        first = contents(report)
        wrong = check_page(os.path.join(report, "index.html")) + check_numbers(report, figures)
        pictures = [name for name in first if name.endswith(".svg")]
        for name in pictures:
            wrong += check_picture(os.path.join(report, name))
        hypermoe(1, "inspect", "run", "--data", "text", "--windows", "12", "--set", "runtime.dtype=float64")
        if contents(report) != first:
            wrong.append("a second report has other bytes")
        # Two ranks add up what they measure in another order, but count the same.
        hypermoe(2, "inspect", "run", "--data", "text", "--windows", "12", "--set", "runtime.dtype=float64")
        second = contents(report)
        wrong += [f"{name} differs on two ranks" for name in first
                  if name not in ("index.html", "measured_layers.csv") and first[name] != second[name]]
        hypermoe(1, "evaluate", "--checkpoint", "run")  # the run is as it was
        # Without data: an older report's files go.
        hypermoe(1, "inspect", "run")
        if any(name.startswith("measured") for name in contents(report)):
            wrong.append("files of an older report are still there")
    finally:
        shutil.rmtree(folder)
    print("\n".join(wrong) or f"all as it must be, {len(pictures)} pictures")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
