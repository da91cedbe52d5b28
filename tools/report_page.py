"""Puts a report's table and figures into one HTML page that needs nothing else."""

import html
import statistics

from report_metrics import PHASES, dropped_share

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5d6878; --paper: #ffffff; --line: #d9dee6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #98a3b3; --paper: #14181e; --line: #333b47; } }
body { margin: 0 auto; max-width: 1100px; padding: 1.5rem 1rem 3rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 1rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 0; }
p { color: var(--soft); margin: .15rem 0 .3rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 500; } th:first-child, td:first-child { text-align: left; }
svg { display: block; width: 100%; max-width: 960px; height: auto; } svg image { image-rendering: pixelated; }
details { margin-top: .6rem; } summary { cursor: pointer; } pre { font-size: 13px; overflow-x: auto; }
"""


def median_of(run, value):
    numbers = [number for _, number in run.series(value)]
    return statistics.median(numbers) if numbers else None


def phase_share(run, *phases):
    """Of all the time of all steps."""
    whole = sum(line["seconds"][phase] for line in run.train for phase in PHASES)
    return sum(line["seconds"][phase] for line in run.train for phase in phases) / whole if whole > 0 else None


def text(value, pattern, scale=1.0):
    return "–" if value is None else format(value * scale, pattern)


def summary(run):
    """Heading -> text, in the order of the table's columns."""
    last = run.train[-1]
    validation = run.validation[-1] if run.validation else {}
    return {
        "run": run.name,
        "steps": f"{last['step']:,}",
        "tokens": f"{last['tokens']:,.0f}",
        "loss": text(last["loss"], ".4f"),
        "validation loss": text(validation.get("loss"), ".4f"),
        "perplexity": text(validation.get("perplexity"), ".4g"),
        "tokens/s": text(median_of(run, lambda line: line["tokens_per_second"]), ",.0f"),
        "forward": text(phase_share(run, "forward"), ".1f", 100) + " %",
        "backward": text(phase_share(run, "backward"), ".1f", 100) + " %",
        "all-to-all": text(phase_share(run, "all_to_all"), ".1f", 100) + " %",
        "reduce": text(phase_share(run, "reduce"), ".1f", 100) + " %",
        "optimizer": text(phase_share(run, "optimizer"), ".1f", 100) + " %",
        "dropped": text(median_of(run, dropped_share), ".2f", 100) + " %",
        "MFU": text(median_of(run, lambda line: line.get("mfu")), ".1f", 100) + " %",
        "memory": text(last.get("memory_bytes"), ".2f", 2.0**-30) + " GiB",
    }


def table(runs):
    rows = [summary(run) for run in runs]
    # What no run knows has no column.
    columns = [name for name in rows[0] if any("–" not in row[name] for row in rows)]
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(row[name])}</td>" for name in columns) + "</tr>" for row in rows)
    return f'<div class="table"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def configurations(runs):
    parts = [f"<details><summary>{html.escape(run.name)}</summary>\n<pre>{html.escape(run.config)}</pre></details>"
             for run in runs if run.config]
    return "<h2>Configuration</h2>\n" + "\n".join(parts) if parts else ""


def page(runs, figures):
    title = "HyperMoE: " + ", ".join(run.name for run in runs)
    sections = "\n".join(f"<section>\n<h2>{html.escape(f.title)}</h2>\n<p>{html.escape(f.caption)}</p>\n{f.svg}\n</section>"
                         for f in figures)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
{table(runs)}
<p>Loss: of the last step; validation: the last one; tokens/s, dropped, MFU: medians over the steps; forward to optimizer: shares of
all time in steps, all-to-all being part of forward and backward.</p>
{sections}
{configurations(runs)}
</body>
</html>
"""
