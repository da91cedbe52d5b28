#!/usr/bin/env python3
"""tools/paper_table on made-up runs: which cell a run belongs to, means and differences, and what it refuses."""

import json
import os
import subprocess
import unittest

from in_folder import InFolder

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools", "paper_table")


class PaperTable(InFolder):
    def make_run(self, name, task, kind, seed, values, metric, experts=8, condition="unselected", latest=None, best=False):
        """Validations of `values`, ten steps apart."""
        folder = self.path("runs", name)
        os.makedirs(os.path.join(folder, "checkpoints"))
        with open(os.path.join(folder, "config.textproto"), "w", encoding="utf-8") as file:
            file.write(f"model {{\n  kind: {kind}\n  num_experts: {experts}\n  balance_loss {{\n    scope: row\n  }}\n}}\n"
                       f"hyper {{\n  condition: {condition}\n}}\ndata {{\n  task: \"{task}\"\n}}\n"
                       f"train {{\n  keep_best: {str(best).lower()}\n}}\nruntime {{\n  seed: {seed}\n}}\n")
        with open(os.path.join(folder, "metrics.jsonl"), "w", encoding="utf-8") as file:
            for number, value in enumerate(values, 1):
                file.write(json.dumps({"kind": "train", "step": 10 * number, "loss": 1.0}) + "\n")
                file.write(json.dumps({"kind": "validation", "step": 10 * number, "loss": 1.0, metric: value}) + "\n")
        with open(os.path.join(folder, "checkpoints", "latest"), "w", encoding="utf-8") as file:
            file.write(f"step_{10 * len(values) if latest is None else latest:08d}\n")
        return folder

    def run_it(self, *arguments):
        return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=False)

    def lines(self, *arguments):
        done = self.run_it(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
                for line in done.stdout.splitlines() if line.startswith("| ") and "---" not in line}, done

    def test_cells_means_and_differences(self):
        for seed, moe, hyper in ((1, 90.0, 91.0), (2, 92.0, 93.5), (3, 91.0, 91.5)):
            self.make_run(f"moe{seed}", "sst2", "moe", seed, [50.0, moe], "accuracy")
            self.make_run(f"hyper{seed}", "sst2", "hyper", seed, [50.0, hyper], "accuracy")
        self.make_run("other_task", "cola", "hyper", 1, [40.0], "matthews")
        rows, done = self.lines(self.path("runs"))
        # t of 2 degrees of freedom is 4.3027; deviations 1 and 0.5 of 3 values.
        self.assertEqual(rows["MoE"][:2], ["- (54.24)", "91.00 ± 2.48 [3] (93.81)"])
        self.assertEqual(rows["HyperMoE"][:2], ["40.00 [1] (54.67)", "92.00 ± 3.29 [3] (94.38)"])
        self.assertEqual(rows["HyperMoE - MoE"][:2], ["-", "+1.00 (-0.24 to +2.24)"])
        self.assertEqual(rows["HyperMoE"][-1], "- (83.25)")  # one task of eight has no mean
        self.assertIn("Table 1, GLUE", done.stdout)
        self.assertNotIn("SuperGLUE", done.stdout)

    def test_mean_over_tasks(self):
        tasks = (("cola", "matthews"), ("sst2", "accuracy"), ("stsb", "pearson"), ("mrpc", "accuracy"), ("qqp", "accuracy"),
                 ("mnli", "accuracy"), ("qnli", "accuracy"), ("rte", "accuracy"))
        for number, (task, metric) in enumerate(tasks):
            self.make_run(task, task, "moe_share", 1, [float(10 * number)], metric)
        rows, _ = self.lines(self.path("runs"))
        self.assertEqual(rows["MoE-Share"][-1], "35.00 (83.01)")

    def test_tables_of_squad(self):
        self.make_run("moe", "squad", "moe", 1, [80.0], "exact_match")
        self.make_run("hidden", "squad", "hyper", 1, [81.0], "exact_match", condition="hidden")
        self.make_run("weights", "squad", "hyper", 1, [82.0], "exact_match", condition="weights")
        self.make_run("moe16", "squad", "moe", 1, [83.0], "exact_match", experts=16)
        rows, done = self.lines(self.path("runs"))
        self.assertEqual(rows["nothing (MoE)"], ["80.00 [1] (83.01)"])
        self.assertEqual(rows["hidden state - nothing (MoE)"], ["+1.00"])
        self.assertEqual(rows["experts' weights (W)"], ["82.00 [1] (83.33)"])
        self.assertEqual(rows["MoE"], ["83.00 [1]"])  # of the last table, Figure 3's
        self.assertIn("Figure 3, 16 experts", done.stdout)
        self.assertNotIn("Figure 3, 32 experts", done.stdout)

    def test_best_validation(self):
        self.make_run("best", "wikitext", "moe", 1, [30.0, 22.0, 25.0], "perplexity", best=True)
        self.make_run("last", "xsum", "moe", 1, [18.0, 20.0, 19.0], "rouge2")
        rows, _ = self.lines(self.path("runs"))
        self.assertEqual(rows["MoE"], ["19.00 [1] (19.35)", "- (19.75)", "- (83.01)", "22.00 [1] (21.71)"])

    def test_unfinished_runs_are_left_out(self):
        self.make_run("done", "sst2", "moe", 1, [90.0], "accuracy")
        path = self.make_run("stopped", "sst2", "hyper", 1, [91.0], "accuracy", latest=15)
        rows, done = self.lines(self.path("runs"))
        self.assertEqual(rows["HyperMoE"][1], "- (94.38)")
        self.assertIn(path, done.stderr)

    def test_output_file(self):
        self.make_run("done", "sst2", "moe", 1, [90.0], "accuracy")
        done = self.run_it(self.path("runs", "done"), "--output", self.path("page.md"))
        with open(self.path("page.md"), encoding="utf-8") as file:
            self.assertEqual(file.read(), done.stdout)

    def refused(self, code, *words):
        done = self.run_it(self.path("runs"))
        self.assertEqual(done.returncode, code, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertEqual(done.stdout, "")

    def test_refuses(self):
        self.refused(65, "no folder")
        os.makedirs(self.path("runs"))
        self.refused(65, "no finished run")
        self.make_run("a", "sst2", "moe", 1, [90.0], "accuracy")
        self.make_run("b", "sst2", "moe", 1, [91.0], "accuracy")
        self.refused(65, "one seed of the same cell")

    def test_refuses_other_metrics(self):
        self.make_run("a", "sst2", "moe", 1, [90.0], "matthews")
        self.refused(65, "has no accuracy")

    def test_refuses_malformed_lines(self):
        folder = self.make_run("a", "sst2", "moe", 1, [90.0], "accuracy")
        with open(os.path.join(folder, "metrics.jsonl"), "a", encoding="utf-8") as file:
            file.write("nothing\n")
        self.refused(65, "metrics.jsonl, line 3")


if __name__ == "__main__":
    unittest.main()
