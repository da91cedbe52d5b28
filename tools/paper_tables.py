"""The paper's tables (arXiv:2402.12656) in Markdown: what was measured, and the paper's own figures beside."""

from seed_statistics import difference_cell, head, mean_cell, pairs_of, row
from script_support import BAD_DATA, Failure

TITLES = {
    "cola": "CoLA", "sst2": "SST-2", "stsb": "STS-B", "mrpc": "MRPC", "qqp": "QQP", "mnli": "MNLI", "qnli": "QNLI", "rte": "RTE",
    "boolq": "BoolQ", "cb": "CB", "multirc": "MultiRC", "copa": "COPA", "record": "ReCoRD", "superglue_rte": "RTE", "wic": "WiC",
    "wsc": "WSC", "xsum": "XSum", "cnn_dailymail": "CNN/DM", "squad": "SQuAD", "wikitext": "WikiText",
}
GLUE = ("cola", "sst2", "stsb", "mrpc", "qqp", "mnli", "qnli", "rte")
SUPERGLUE = ("boolq", "cb", "multirc", "copa", "record", "superglue_rte", "wic", "wsc")
GENERATION = ("xsum", "cnn_dailymail", "squad", "wikitext")
# Which runs a row is made of: (kind, condition), the latter of hyper alone.
METHODS = {"MoE": ("moe", None), "MoE-Share": ("moe_share", None), "HyperMoE": ("hyper", "unselected")}


def printed(tasks, **by_row):
    return {name.replace("_", "-"): dict(zip(tasks, map(float, values.split()))) for name, values in by_row.items()}


# (heading, tasks, experts, rows, the paper's figures, whether a mean over the tasks closes the row)
TABLES = (
    ("Table 1, GLUE", GLUE, 8, METHODS, printed(
        GLUE, MoE="54.24 93.81 88.69 87.90 90.58 87.93 91.68 67.35", MoE_Share="53.98 94.27 88.38 89.21 90.51 87.95 92.25 67.52",
        HyperMoE="54.67 94.38 88.68 89.63 90.52 88.43 92.64 67.01"), True),
    ("Table 1, SuperGLUE", SUPERGLUE, 8, METHODS, printed(
        SUPERGLUE, MoE="72.69 69.64 66.38 45.00 71.26 67.15 63.63 56.58", MoE_Share="72.11 67.85 66.71 45.00 71.91 67.87 65.36 56.84",
        HyperMoE="73.14 69.68 67.68 45.00 74.06 67.67 65.31 56.53"), True),
    ("Table 2", GENERATION, 8, METHODS, printed(
        GENERATION, MoE="19.35 19.75 83.01 21.71", MoE_Share="19.41 19.80 82.87 21.63", HyperMoE="19.67 20.12 83.51 21.49"), False),
    ("Table 3: what HyperExperts are made from", ("squad",), 8,
     {"nothing (MoE)": ("moe", None), "hidden state": ("hyper", "hidden"), "experts' weights (W)": ("hyper", "weights"),
      "expert embeddings (P)": ("hyper", "unselected")},
     {"nothing (MoE)": {"squad": 83.01}, "hidden state": {"squad": 82.92}, "experts' weights (W)": {"squad": 83.33},
      "expert embeddings (P)": {"squad": 83.51}}, False),
    # Figures, of which the paper prints no numbers.
    ("Figure 3, 8 experts", ("squad",), 8, METHODS, {}, False),
    ("Figure 3, 16 experts", ("squad",), 16, METHODS, {}, False),
    ("Figure 3, 32 experts", ("squad",), 32, METHODS, {}, False),
    ("Figure 4: embeddings of which experts", ("xsum", "cnn_dailymail"), 8,
     {"selected": ("hyper", "selected"), "unselected": ("hyper", "unselected")}, {}, False),
)


def runs_of(runs, task, experts, method):
    """Those of a cell, by seed; two with the same seed would count one model twice."""
    kind, condition = method
    found = [run for run in runs if run["task"] == task and run["experts"] == experts and run["kind"] == kind
             and (condition is None or run["condition"] == condition)]
    by_seed = {}
    for run in found:
        if run["seed"] in by_seed:
            raise Failure(BAD_DATA, f"{by_seed[run['seed']]['path']} and {run['path']} are runs of one seed of the same cell: give "
                          "one of them")
        by_seed[run["seed"]] = run
    return [by_seed[seed] for seed in sorted(by_seed)]


def cell(found, paper):
    measured = mean_cell([run["value"] for run in found], 2) + f" [{len(found)}]" if found else "-"
    return measured + ("" if paper is None else f" ({paper:.2f})")


def average(cells, figures, tasks):
    """Over tasks, of rows that have them all."""
    measured = "-"
    if all(cells[task] for task in tasks):
        means = [sum(run["value"] for run in cells[task]) / len(cells[task]) for task in tasks]
        measured = f"{sum(means) / len(means):.2f}"
    return measured + (f" ({sum(figures.values()) / len(figures):.2f})" if figures else "")


def table(runs, heading, tasks, experts, rows, paper, averaged):
    """"" where there is no run of it."""
    cells = {name: {task: runs_of(runs, task, experts, method) for task in tasks} for name, method in rows.items()}
    if not any(found for of_row in cells.values() for found in of_row.values()):
        return ""
    text = f"## {heading}\n\n" + head([""] + [TITLES[task] for task in tasks] + (["mean"] if averaged else []))
    for name, of_row in cells.items():
        figures = paper.get(name, {})
        line = [name] + [cell(of_row[task], figures.get(task)) for task in tasks]
        text += row(line + ([average(of_row, figures, tasks)] if averaged else []))
    baseline = cells[next(iter(rows))]
    for name, of_row in list(cells.items())[1:]:
        differences = [[a["value"] - b["value"] for a, b in pairs_of(of_row[task], baseline[task])] for task in tasks]
        if any(differences):
            text += row([f"{name} - {next(iter(rows))}"] + [difference_cell(d, 2) if d else "-" for d in differences]
                        + ([""] if averaged else []))
    return text + "\n"


def tables_page(runs):
    text = ("The paper's tables (arXiv:2402.12656). A cell: mean over seeds ± half the width of its 95 % t interval [seeds] (the "
            "paper's figure). Differences are taken seed by seed, with their 95 % t interval; bold: equality is outside. Percent, "
            "but WikiText: perplexity, of which less is better.\n\n")
    tables = [table(runs, *arguments) for arguments in TABLES]
    return text + "".join(tables).rstrip("\n") + "\n"
