"""Draws the figures of a report with gnuplot, as SVG that takes its ink from the page around it."""

import html
import re
import shutil
import subprocess

from report_metrics import BAD_PROGRAM, NO_SERVICE, ReportError, dropped_share, thin

MAX_POINTS = 400  # of a curve
MAX_COLUMNS = 150  # of a heat map
SMOOTH_POINTS = 80
# Readable on white and on black.
COLORS = ["#4a8fd8", "#e08038", "#45a76b", "#c660a6", "#8f7ce4", "#b39a2c", "#38abb3", "#d85f5f"]
PHASE_COLORS = {"data": "#8f7ce4", "forward and backward": "#4a8fd8", "all-to-all": "#e08038", "reduce": "#45a76b",
                "optimizer": "#c660a6"}
INK = "#010203"  # stands for the page's text colour
MIB, GIB = 2**20, 2**30

STYLE = f"""
set border 3 lc rgb "{INK}" lw 0.8
set tics nomirror out scale 0.4 textcolor rgb "{INK}"
set grid lt 1 lw 0.6 lc rgb "#b0808080"
set key top right textcolor rgb "{INK}" samplen 1.6 spacing 1.15
set xlabel textcolor rgb "{INK}"
set ylabel textcolor rgb "{INK}" offset 0.5,0
set format x "%.12g"
set lmargin 9
set rmargin 3
"""


class Figure:
    """A heading, a sentence on how to read it, and the drawing."""

    def __init__(self, title, caption, svg):
        self.title, self.caption, self.svg = title, caption, svg


def find_gnuplot():
    program = shutil.which("gnuplot")
    if program is None:
        raise ReportError(NO_SERVICE, "gnuplot is not installed, and the figures are drawn by it: "
                                      "apt-get install gnuplot-nox")
    return program


def faded(color):
    return "#a0" + color[1:]  # gnuplot puts transparency first


def color_of(index):
    return COLORS[index % len(COLORS)]


def block(name, rows):
    """Data inside a gnuplot script. Rows of None part a curve."""
    lines = [" ".join(f"{value:.7g}" for value in row) for row in rows]
    return f"${name} << EOD\n" + "\n".join(lines) + "\nEOD\n"


def quoted(text):
    # Within single quotes gnuplot takes everything as it stands but the quote itself.
    return "'" + re.sub(r"[\x00-\x1f]", " ", text).replace("'", "''") + "'"


def adopt(svg, name, label):
    """What gnuplot wrote, as a part of a page: no XML prologue, the page's ink, and no id that another figure has."""
    svg = svg[svg.index("<svg"):].strip()
    svg = re.sub(r"<(title|desc)>[^<]*</\1>\s*", "", svg)
    svg = re.sub(r"<g [^>]*>\s*</g>\n?", "", svg)  # settings for nothing
    # gnuplot sets `color` and draws in it: where that is INK or its own default, the page's shows through.
    svg = re.sub(r"rgb\(\s*1,\s*2,\s*3\)", "currentColor", svg)
    svg = re.sub(r'(color|stroke|fill)="black"', r'\1="currentColor"', svg)
    svg = re.sub(r"(id='|href='#)", rf"\1{name}_", svg)
    svg = svg.replace(' id="gnuplot_canvas"', "")
    return svg.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)


class Plotter:
    """Runs gnuplot; gives every drawing ids of its own."""

    def __init__(self, program):
        self.program, self.count = program, 0

    def draw(self, label, script, height=300):
        self.count += 1
        name = f"figure{self.count}"
        terminal = f'set terminal svg noenhanced dynamic size 860,{height} font "sans-serif,13" name "{name}"\n'
        done = subprocess.run([self.program, "-d", "-"], input=terminal + STYLE + script, capture_output=True, text=True,
                              encoding="utf-8")
        if done.returncode != 0 or "<svg" not in done.stdout:
            raise ReportError(BAD_PROGRAM, f"gnuplot failed on the figure '{label}': {done.stderr.strip()[-300:]}")
        return adopt(done.stdout, name, label)


class Curve:
    def __init__(self, title, points, color, style="lines lw 1.8"):
        self.title, self.points, self.color = title, points, color
        self.style = style if len(points) > 1 else "points pt 7 ps 0.6"


def curves_script(curves, x_label, y_label, settings=""):
    data = "".join(block(f"c{i}", curve.points) for i, curve in enumerate(curves))
    plots = ", ".join(f'$c{i} using 1:2 with {curve.style} lc rgb "{curve.color}" '
                      + (f"title {quoted(curve.title)}" if curve.title else "notitle") for i, curve in enumerate(curves))
    return f"{data}set xlabel {quoted(x_label)}\nset ylabel {quoted(y_label)}\nset xrange [0:*]\n{settings}plot {plots}\n"


def loss_curves(runs, x_of):
    curves = []
    for index, run in enumerate(runs):
        color = color_of(index)
        points = [(x_of(run, step), loss) for step, loss in run.field("loss")]
        prefix = f"{run.name}: " if len(runs) > 1 else ""
        if len(points) > 2 * SMOOTH_POINTS:
            curves.append(Curve("", thin(points, MAX_POINTS), faded(color), "lines lw 1"))
            points = thin(points, SMOOTH_POINTS)
        curves.append(Curve(prefix + "training", points, color, "lines lw 2"))
        if run.validation:
            validation = thin([(x_of(run, line["step"]), line["loss"]) for line in run.validation], MAX_POINTS)
            own = color if len(runs) > 1 else color_of(1)
            curves.append(Curve(prefix + "validation", validation, own, "linespoints lw 1.4 dt (6,4) pt 7 ps 0.45"))
    return curves


def loss_figures(runs, plotter):
    caption = "Mean cross-entropy. Faint: the steps; bold: means over neighbouring steps; dashed: validation."
    yield Figure("Loss against steps", caption,
                 plotter.draw("loss against steps",
                              curves_script(loss_curves(runs, lambda run, step: step), "step", "loss (nats a token)"), 340))

    def millions(run, step):
        return run.tokens_at(step) / 1e6

    yield Figure("Loss against tokens", "The same, against the tokens trained on: for runs of different batch sizes.",
                 plotter.draw("loss against tokens",
                              curves_script(loss_curves(runs, millions), "million tokens", "loss (nats a token)"), 340))


def simple_figure(runs, plotter, title, caption, value, y_label, settings=""):
    """One curve a run; none of it where no run knows the value."""
    curves = [Curve(run.name, thin(run.series(value), MAX_POINTS), color_of(index)) for index, run in enumerate(runs)]
    curves = [curve for curve in curves if curve.points]
    if not curves:
        return
    if len(runs) == 1:
        curves[0].title = ""
    yield Figure(title, caption, plotter.draw(title.lower(), curves_script(curves, "step", y_label, settings)))


def scaled_by(value, factor):
    return lambda line: None if value(line) is None else value(line) * factor


def scaled(name, factor=1.0):
    return scaled_by(lambda line: line.get(name), factor)


def optimizer_figures(runs, plotter):
    yield from simple_figure(runs, plotter, "Learning rate", "", scaled("learning_rate"), "learning rate",
                             'set yrange [0:*]\n')
    yield from simple_figure(runs, plotter, "Gradient norm", "Of the whole gradient, before clipping.",
                             scaled("grad_norm"), "norm", "set logscale y\n")


def layer_ratio(tokens):
    mean = sum(tokens) / len(tokens)
    return [count / mean if mean > 0 else 1.0 for count in tokens]


def heat_cells(run, layer):
    """(step, expert, load relative to the layer's mean) of the cells of a heat map, and the width of a cell in steps."""
    rows = [(line["step"], *layer_ratio(line["expert_load"][layer])) for line in run.train]
    columns = thin(rows, MAX_COLUMNS)
    if len(columns) == 1:  # gnuplot draws no image of one column
        columns *= 2
    width = (rows[-1][0] - rows[0][0] + 1) / len(columns)
    first = rows[0][0] - 0.5 + width / 2
    return [(first + i * width, expert, load) for i, column in enumerate(columns) for expert, load in enumerate(column[1:])]


def heat_panel(run, layer, is_lowest):
    experts = len(run.train[0]["expert_load"][layer])
    return (block(f"h{layer}", heat_cells(run, layer))
            + f"set title {quoted(f'sparse layer {layer}')} offset 0,-0.8 textcolor rgb '{INK}'\n"
            + f"set xrange [{run.train[0]['step'] - 0.5}:{run.train[-1]['step'] + 0.5}]\n"
            + f"set yrange [-0.5:{experts - 0.5}]\nset ytics 0,{max(1, -(-experts // 8))},{experts - 1}\n"
            + f"set xlabel '{'step' if is_lowest else ''}'\n"
            + f"plot $h{layer} using 1:2:3 with image notitle\nunset colorbox\n")


def heat_figure(run, title, plotter):
    layers = run.num_layers()
    columns = 1 if layers == 1 else 2
    rows = -(-layers // columns)
    height = 85 + 175 * rows
    script = (f"set multiplot layout {rows},{columns} margins screen 0.075,0.9,{60 / height:.4f},{1 - 25 / height:.4f} "
              f"spacing screen 0.075,{58 / height:.4f}\n"
              "unset key\nunset grid\nset cbrange [0:2]\nset tics front\nset ylabel 'expert'\n"
              "set palette defined (0 '#2166ac', 0.5 '#92c5de', 1 '#f7f7f7', 1.5 '#f4a582', 2 '#b2182b')\n"
              f"set colorbox user origin screen 0.92,{60 / height:.4f} size screen 0.015,{100 / height:.4f} noborder\n"
              f"set cbtics ('0' 0, '1' 1, '≥ 2' 2) textcolor rgb '{INK}'\n")
    script += "".join(heat_panel(run, layer, layer + columns >= layers) for layer in range(layers)) + "unset multiplot\n"
    return Figure(title, "Tokens of each expert over the mean of its layer: 1 is balance, 0 an expert without tokens.",
                  plotter.draw(title, script, height))


def heat_figures(runs, plotter):
    for run in runs:
        if run.num_layers() > 0:
            yield heat_figure(run, "Load of the experts" + (f": {run.name}" if len(runs) > 1 else ""), plotter)


def worst_load(line):
    return line.get("expert_load_max_over_mean") if line.get("expert_load") else None


def expert_figures(runs, plotter):
    yield from heat_figures(runs, plotter)
    yield from simple_figure(runs, plotter, "Busiest expert", "Tokens of the busiest expert over the mean, in the layer "
                             "where that is worst. 1 is balance.", worst_load, "largest load / mean", "set yrange [1:*]\n")
    yield from simple_figure(runs, plotter, "Dropped tokens", "Tokens for which the selected expert had no room, over all "
                             "sparse layers.", scaled_by(dropped_share, 100), "% of tokens", "set yrange [0:*]\n")
    yield from simple_figure(runs, plotter, "Share of HyperExperts", "What HyperExperts add to the tokens over what experts add, "
                             "mean of the layers.", scaled("hyper_share"), "||Ehat|| / ||E||", "set yrange [0:*]\n")


def step_parts(line):
    """Where the milliseconds of a step went, in the order in which they are stacked."""
    s = {name: 1e3 * seconds for name, seconds in line["seconds"].items()}
    return {"forward and backward": max(0.0, s["forward"] + s["backward"] - s["all_to_all"]),
            "all-to-all": s["all_to_all"], "reduce": s["reduce"], "optimizer": s["optimizer"], "data": s["data"]}


def step_figures(runs, plotter):
    for run in runs:
        names = list(step_parts(run.train[0]))
        rows = []
        for step, *parts in thin([(line["step"], *step_parts(line).values()) for line in run.train], MAX_POINTS // 2):
            sums = [sum(parts[:i]) for i in range(len(parts) + 1)]
            rows.append((step, *sums))
        if len(rows) == 1:  # an area needs two ends
            rows.append((rows[0][0] + 1, *rows[0][1:]))
        plots = ", ".join(f'$parts using 1:{i + 2}:{i + 3} with filledcurves fs solid 0.85 lc rgb "{PHASE_COLORS[name]}" '
                          f"title '{name}'" for i, name in enumerate(names))
        script = (block("parts", rows) + "set xlabel 'step'\nset ylabel 'milliseconds'\nset xrange [0:*]\nset yrange [0:*]\n"
                  f"set key outside center top horizontal\nplot {plots}\n")
        title = "Where the time of a step goes" + (f": {run.name}" if len(runs) > 1 else "")
        yield Figure(title, "Means over the ranks, stacked. All-to-all includes waiting for other ranks and is taken out of "
                     "forward and backward, which it is a part of.", plotter.draw(title, script))


def speed_figures(runs, plotter):
    yield from simple_figure(runs, plotter, "Speed", "Whole steps, all ranks together.", scaled("tokens_per_second", 1e-3),
                             "thousand tokens/s", "set yrange [0:*]\nset key bottom right\n")
    yield from step_figures(runs, plotter)
    yield from simple_figure(runs, plotter, "Model FLOPs utilisation", "", scaled("mfu", 100), "% of the peak",
                             "set yrange [0:*]\nset key bottom right\n")
    yield from simple_figure(runs, plotter, "Memory", "The most that a rank has had so far.", scaled("memory_bytes", 1 / GIB),
                             "GiB", "set yrange [0:*]\nset key bottom right\n")
    if any(line.get("bytes_sent") for run in runs for line in run.train):
        yield from simple_figure(runs, plotter, "Sent between ranks", "Payload of all collectives of a step, summed over "
                                 "ranks.", scaled("bytes_sent", 1 / MIB), "MiB a step", "set yrange [0:*]\nset key bottom right\n")


def all_figures(runs, gnuplot):
    plotter = Plotter(gnuplot)
    return [figure for part in (loss_figures, optimizer_figures, expert_figures, speed_figures)
            for figure in part(runs, plotter)]
