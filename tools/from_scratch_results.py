"""Results of tools/from_scratch: what is kept of a run, means and paired differences over seeds, the page that shows them."""

import math
import statistics

from seed_statistics import difference_cell, head, mean_cell, pairs_of, row

BASELINE = "moe"


def training_summary(metrics):
    """Of the lines of a finished run's metrics.jsonl."""
    train = [line for line in metrics if line["kind"] == "train"]
    last = train[-max(1, len(train) // 10):]
    return {
        "steps": train[-1]["step"],
        "train_tokens": train[-1]["tokens"],
        "training_loss": statistics.mean(line["loss"] for line in last),
        "validation_loss": [line["loss"] for line in metrics if line["kind"] == "validation"][-1],
        "tokens_per_second": statistics.median(line["tokens_per_second"] for line in train),
    }


# (heading, value of a result, digits after the point)
MEASURES = (
    ("training loss", lambda r: r["training_loss"], 4),
    ("validation loss", lambda r: r["validation_loss"], 4),
    ("test, nats a byte", lambda r: r["test_nats"] / r["settings"]["test_bytes"], 4),
    ("test, bits a byte", lambda r: r["test_nats"] / r["settings"]["test_bytes"] / math.log(2), 4),
    ("test, word perplexity", lambda r: math.exp(r["test_nats"] / r["settings"]["test_words"]), 1),
    ("tokens/s", lambda r: r["tokens_per_second"], 0),
)
# (heading, value, digits): differences of the logarithm are shown as a ratio.
DIFFERENCES = MEASURES[:4]
RATIO = ("word perplexity, ratio", lambda r: r["test_nats"] / r["settings"]["test_words"], 3)


def means_table(by_kind):
    text = head(["kind", "seeds", "parameters", "active for a token"] + [heading for heading, _, _ in MEASURES])
    for kind, results in by_kind.items():
        cells = [kind, str(len(results)), f"{results[0]['parameters']:,}", f"{results[0]['active']:,}"]
        text += row(cells + [mean_cell([value(r) for r in results], digits) for _, value, digits in MEASURES])
    return text


def differences_table(by_kind):
    text = head(["paired difference", "pairs"] + [heading for heading, _, _ in DIFFERENCES] + [RATIO[0]])
    for kind, results in by_kind.items():
        pairs = pairs_of(results, by_kind[BASELINE])
        if kind == BASELINE or not pairs:
            continue
        cells = [f"{kind} - {BASELINE}", str(len(pairs))]
        for _, value, digits in DIFFERENCES:
            cells.append(difference_cell([value(a) - value(b) for a, b in pairs], digits))
        cells.append(difference_cell([RATIO[1](a) - RATIO[1](b) for a, b in pairs], RATIO[2], math.exp, ""))
        text += row(cells)
    return text


def runs_table(by_kind):
    text = head(["seed", "kind"] + [heading for heading, _, _ in MEASURES])
    for result in sorted((r for results in by_kind.values() for r in results), key=lambda r: r["seed"]):
        text += row([str(result["seed"]), result["kind"]] + [f"{value(result):,.{digits}f}" for _, value, digits in MEASURES])
    return text


def results_page(results, kinds):
    """Markdown; `results` are the contents of result.json, at least one."""
    by_kind = {kind: [r for r in results if r["kind"] == kind] for kind in kinds}
    by_kind = {kind: found for kind, found in by_kind.items() if found}
    first = results[0]
    facts = first["settings"]
    programs = ", ".join(sorted({r["program"] for r in results}))
    text = (f"{first['steps']:,} steps, {first['train_tokens']:,} training tokens (bytes) a run; program {programs}.\n\n"
            "Means over seeds ± half the width of the 95 % t interval:\n\n" + means_table(by_kind))
    if BASELINE in by_kind and len(by_kind) > 1:
        text += ("\nSeed by seed against " + BASELINE + ", mean (95 % t interval); bold: equality is outside. Below 0, or a ratio "
                 "below 1, is better than " + BASELINE + ":\n\n" + differences_table(by_kind))
    text += "\nThe single runs:\n\n" + runs_table(by_kind)
    return text + (
        f"\nTraining loss: mean of the last tenth of the steps. Validation: the held-out end of the training text. Test: "
        f"{facts['test_bytes']:,} bytes, {facts['test_words']:,} words (what stands between white space, and each line's end), "
        "in windows that do not overlap and begin without context. Losses are nats a token, without the balance loss; word "
        "perplexity is exp(all nats of the test text / words). tokens/s: median over steps of one run on one core, the others "
        "of the machine being busy with the next run: of this machine, and no measurement unless nothing else ran.\n")
