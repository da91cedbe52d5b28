#!/usr/bin/env python3
"""tools/report, from outside: pages, errors and exit codes.

    tests/tools/report_test.py
"""

import html.parser
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FIGURES = ["Loss against steps", "Loss against tokens", "Learning rate", "Gradient norm", "Load of the experts",
           "Busiest expert", "Speed", "Where the time of a step goes", "Sent between ranks"]
LATER_FIGURES = ["Dropped tokens", "Share of HyperExperts", "Model FLOPs utilisation", "Memory"]  # of fields that may be absent


def train_line(number, **changes):
    line = {
        "kind": "train", "step": number, "tokens": 512 * number, "loss": 5 / number, "grad_norm": 1.0, "learning_rate": 1e-3,
        "tokens_per_second": 1000.0 + number, "expert_load": [[256, 128, 64, 64], [128, 128, 128, 128]],
        "expert_load_max_over_mean": 2.0, "bytes_sent": 4096,
        "seconds": {"data": 0.0, "forward": 0.3, "backward": 0.5, "reduce": 0.15, "optimizer": 0.05, "all_to_all": 0.125},
    }
    line.update(changes)
    return line


def validation_line(step):
    return {"kind": "validation", "step": step, "loss": 1.2345678, "perplexity": 3.4368}


def good_lines(steps=40):
    return [train_line(step) for step in range(1, steps + 1)] + [validation_line(steps)]


class Page(html.parser.HTMLParser):
    """What a page shows; fails on tags that do not match."""

    VOID = {"meta", "link", "br"}

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.cells, self.svgs, self.addresses, self.ids = [], [], [], 0, [], []
        self.feed(text)
        self.close()
        if self.open:
            raise AssertionError(f"never closed: {self.open}")

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        self.svgs += tag == "svg"
        self.handle_startendtag(tag, attributes)

    def handle_startendtag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            raise AssertionError(f"</{tag}> closes nothing")

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)

    def row(self, number):
        """Heading -> text of the number-th run."""
        columns = self.cells.index("run"), len(self.cells)
        names = self.cells[columns[0]:next(i for i, cell in enumerate(self.cells) if i and cell in self.runs)]
        start = len(names) * (1 + number)
        return dict(zip(names, self.cells[start:start + len(names)]))

    runs = ("a", "b", "x/a", "y/a")


class ReportTest(unittest.TestCase):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory(prefix="hypermoe_report_")
        self.addCleanup(self.scratch.cleanup)

    def path(self, *names):
        return os.path.join(self.scratch.name, *names)

    def write(self, name, content):
        """A run of these lines, or of this text."""
        os.makedirs(self.path(name))
        text = content if isinstance(content, str) else "".join(json.dumps(line) + "\n" for line in content)
        with open(self.path(name, "metrics.jsonl"), "w", encoding="utf-8") as file:
            file.write(text)

    def report(self, *arguments, **environment):
        return subprocess.run([sys.executable, "-B", os.path.join(SOURCE, "tools", "report"), *arguments], text=True,
                              capture_output=True, cwd=self.scratch.name, env={**os.environ, **environment})

    def page(self, *arguments):
        done = self.report(*arguments)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        with open(self.path(done.stdout.strip()), encoding="utf-8") as file:
            self.text = file.read()
        return Page(self.text)

    def fails(self, code, pattern, *arguments, **environment):
        done = self.report(*arguments, **environment)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertRegex(done.stderr, r"\Areport: error: [^\n]*" + pattern + r"[^\n]*\n\Z")
        self.assertEqual([name for name in os.listdir(self.scratch.name) if name.endswith((".html", ".part"))], [])

    def test_one_run_has_a_figure_of_everything_and_its_last_numbers(self):
        self.write("a", good_lines())
        page = self.page("a")
        self.assertEqual(page.headings, FIGURES)
        self.assertEqual(page.svgs, len(FIGURES))
        expected = {"run": "a", "steps": "40", "tokens": "20,480", "loss": "0.1250", "validation loss": "1.2346",
                    "perplexity": "3.437", "tokens/s": "1,020", "forward": "30.0 %", "backward": "50.0 %",
                    "all-to-all": "12.5 %", "reduce": "15.0 %", "optimizer": "5.0 %"}
        self.assertEqual(page.row(0), expected)

    def test_fields_that_may_be_absent_are_shown_where_they_are_there(self):
        more = {"dropped_tokens": [0, 32], "mfu": 0.25, "memory_bytes": 3 * 2**29, "hyper_share": 0.125}
        self.write("a", [train_line(step, **more) for step in range(1, 5)])
        self.write("b", [train_line(1, mfu=None)])
        page = self.page("a", "b")
        self.assertTrue(set(LATER_FIGURES) <= set(page.headings), page.headings)
        row = page.row(0)
        self.assertEqual((row["dropped"], row["MFU"], row["memory"]), ("3.12 %", "25.0 %", "1.50 GiB"))
        self.assertEqual(page.row(1)["MFU"], "– %")

    def test_curves_stand_at_their_values(self):
        self.write("a", [train_line(step, loss=2.0) for step in (1, 2)])
        self.write("b", [train_line(step, loss=4.0) for step in (1, 2)])
        self.page("a", "b")
        figure = self.text[self.text.index("<svg"):self.text.index("</svg>")]
        # A tick of the loss axis: a short level line, then its number.
        ticks = re.findall(r"d='M[\d.]+,([\d.]+) L[\d.]+,\1\s*'/>\s*<g [^>]*>\s*<text>\s*([\d.]+)</text>", figure)
        height_of = {float(number): height for height, number in ticks}
        # A curve: its sample in the legend, then its two points.
        curves = re.findall(r"stroke='rgb\([^']*'\s+d='M\S+ L\S+ M[\d.]+,([\d.]+) L[\d.]+,([\d.]+)\s*'", figure)
        self.assertEqual(curves, [(height_of[2.0],) * 2, (height_of[4.0],) * 2])

    def test_needs_nothing_from_elsewhere(self):
        self.write("a", good_lines())
        page = self.page("a")
        self.assertTrue(page.addresses)  # the heat maps' pictures
        for address in page.addresses:
            self.assertTrue(address.startswith(("data:", "#")), address[:80])
        self.assertIsNone(re.search(r"(?i)<script|@import|url\(\s*['\"]?http|<link", self.text))

    def test_ids_are_unique(self):
        self.write("a", good_lines())
        ids = self.page("a").ids
        self.assertTrue(ids)
        self.assertEqual(sorted(set(ids)), sorted(ids))

    def test_same_input_same_bytes(self):
        self.write("a", good_lines())
        self.page("a", "-o", "1.html")
        first = self.text
        self.page("a", "-o", "2.html")
        self.assertTrue(first == self.text)

    def test_names_cannot_break_the_page(self):
        name = "<b> & 'q' \"\\_^{2}"
        self.write(name, good_lines())
        self.write("b", good_lines())
        self.page(name, "b", "-o", "page.html")
        self.assertFalse("<b>" in self.text)
        self.assertTrue("&lt;b&gt; &amp; &#x27;q&#x27;" in self.text)

    def test_runs_of_the_same_name_are_told_apart(self):
        self.write("x/a", good_lines())
        self.write("y/a", good_lines(8))
        page = self.page("x/a", "y/a")
        self.assertEqual([page.row(i)["steps"] for i in (0, 1)], ["40", "8"])
        self.fails(64, "given twice", "x/a", "x/a", "-o", "z.html")

    def test_a_dense_run_has_no_experts(self):
        self.write("a", [train_line(step, expert_load=[], expert_load_max_over_mean=0, bytes_sent=0) for step in (1, 2)])
        page = self.page("a")
        self.assertFalse({"Load of the experts", "Busiest expert", "Sent between ranks"} & set(page.headings))

    def test_a_run_of_one_step_can_be_drawn(self):
        self.write("a", [train_line(1)])
        self.assertEqual(self.page("a").svgs, len(FIGURES))

    def test_a_torn_last_line_is_left_out(self):
        text = "".join(json.dumps(line) + "\n" for line in good_lines())
        self.write("a", text + json.dumps(train_line(41))[:100])
        self.assertEqual(self.page("a").row(0)["steps"], "40")

    def test_long_runs_stay_small(self):
        lines = [train_line(step, expert_load=[[step * e % 97 for e in range(1, 33)]] * 4) for step in range(1, 5001)]
        self.write("a", lines)
        self.page("a")
        self.assertLess(len(self.text), 2_000_000)

    def test_bad_input_is_one_error_with_its_code(self):
        cases = {
            "empty": ("", 65, "no complete training line"),
            "torn": ('{"kind": "tr', 65, "no complete training line"),
            "text": ("not json\nnot json\n", 65, "line 1, is not JSON"),
            "other": ('{"a": 1}\n{"a": 2}\n', 65, "line 1, is not an object of kind"),
            "list": ("[1]\n[2]\n", 65, "line 1, is not an object of kind"),
            "step": ([train_line(1, step="7")], 65, 'step is "7"'),
            "order": ([train_line(5), train_line(4)], 65, "step 4 comes after step 5"),
            "loss": ([train_line(1), train_line(2, loss=None)], 65, "line 2,: loss is null"),
            "nan": ('{"kind": "validation", "step": 1, "loss": NaN, "perplexity": 1}\n', 65, "loss is NaN"),
            "load": ([train_line(1, expert_load=[[1, "2"]])], 65, "expert_load is"),
            "layers": ([train_line(1), train_line(2, expert_load=[[1, 2]])], 65, "other layers or experts"),
        }
        for name, (content, code, pattern) in cases.items():
            with self.subTest(name):
                self.write(name, content)
                self.fails(code, re.escape(pattern), name)
        self.fails(74, "metrics.jsonl could not be read", "missing")
        self.fails(64, "required", "--output", "x.html")
        self.write("good", good_lines())
        self.fails(74, "could not be written", "good", "-o", "no/such/folder.html")

    def test_without_gnuplot_the_error_names_the_package(self):
        self.write("a", good_lines())
        self.fails(69, "gnuplot-nox", "a", PATH=self.path())


if __name__ == "__main__":
    unittest.main()
