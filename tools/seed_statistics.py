"""Means and paired differences over seeds, with 95 % t intervals, as cells of Markdown tables."""

import math
import statistics


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


def row(cells):
    return "| " + " | ".join(cells) + " |\n"


def head(cells):
    return row(cells) + row(["---"] * len(cells))


def mean_cell(values, digits):
    mean, half = interval(values)
    return f"{mean:,.{digits}f}" + ("" if half is None else f" ± {half:,.{digits}f}")


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
