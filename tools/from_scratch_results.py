"""Results of tools/from_scratch: what is kept of a run, means and paired differences over seeds, the page that shows them."""

import math
import statistics

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


def t_distribution(t, freedom):
    """P(|T| <= t) for Student's T with a whole number of degrees of freedom (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2 == 1
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= cosine * cosine * k / (k + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def t_quantile(freedom):
    """The t that |T| exceeds in 5 % of cases."""
    low, high = 0.0, 16.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_distribution(middle, freedom) < 0.95 else (low, middle)
    return low


def interval(values):
    """Mean, and half the width of its 95 % t interval (None for a single value)."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, None
    return mean, t_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


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


def row(cells):
    return "| " + " | ".join(cells) + " |\n"


def head(cells):
    return row(cells) + row(["---"] * len(cells))


def mean_cell(values, digits):
    mean, half = interval(values)
    return f"{mean:,.{digits}f}" + ("" if half is None else f" ± {half:,.{digits}f}")


def means_table(by_kind):
    text = head(["kind", "seeds", "parameters", "active for a token"] + [heading for heading, _, _ in MEASURES])
    for kind, results in by_kind.items():
        cells = [kind, str(len(results)), f"{results[0]['parameters']:,}", f"{results[0]['active']:,}"]
        text += row(cells + [mean_cell([value(r) for r in results], digits) for _, value, digits in MEASURES])
    return text


def pairs_of(results, baseline):
    """(result, the baseline's) for every seed that both have."""
    by_seed = {r["seed"]: r for r in baseline}
    return [(r, by_seed[r["seed"]]) for r in results if r["seed"] in by_seed]


def difference_cell(differences, digits, shown=lambda number: number, sign="+"):
    """Mean and interval; bold where the interval has no place for equality."""
    mean, half = interval(differences)
    text = f"{shown(mean):{sign}.{digits}f}"
    if half is None:
        return text
    text += f" ({shown(mean - half):{sign}.{digits}f} to {shown(mean + half):{sign}.{digits}f})"
    return f"**{text}**" if abs(mean) > half else text


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
