#!/usr/bin/env python3
"""The benchmark programs, from outside, on small shapes: what they print must hang together.

    tests/tools/benchmarks_test.py BUILD_FOLDER
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(sys.argv.pop(1))
SMALL = ["--batch=6", "--sequence=16", "--layers=2", "--experts=4", "--steps=3", "--warmup=1"]
for setting in ("model.hidden_size=32", "model.num_heads=2", "model.ffn_size=48", "model.vocab_size=300"):
    SMALL += ["--set", setting]


# 16 inputs are made from 17 tokens, of which one gap of 3 becomes 5 labels: sentinel, tokens, end.
SWITCH_SMALL = SMALL[:-2] + ["--set", "model.vocab_size=400"]


def run(command, ranks=1, **environment):
    launcher = [] if ranks == 1 else [os.path.join(SOURCE, "launch/mpirun"), "-np", str(ranks)]
    return subprocess.run(launcher + command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          env={**os.environ, "BUILD_DIR": BUILD, **environment})


def program(name, *arguments, ranks=1):
    return run([os.path.join(BUILD, name), *arguments], ranks)


class Benchmarks(unittest.TestCase):
    def lines(self, done):
        """The machine, and the other JSON lines."""
        self.assertEqual(done.returncode, 0, done.stderr)
        first, *rest = [json.loads(line) for line in done.stdout.splitlines()]
        return first["machine"], rest

    def fails(self, code, pattern, done):
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertRegex(done.stderr, pattern)
        self.assertEqual(done.stderr.count("hypermoe: error:"), 1, done.stderr)

    def check_train_step(self, ranks):
        kinds = ["dense", "moe", "hyper+hyper.execution=owner"]
        done = program("bench_train_step", "--json", "--kind", ",".join(kinds), *SMALL, ranks=ranks)
        machine, lines = self.lines(done)
        self.assertEqual(machine["ranks"], ranks)
        results = [line for line in lines if "kind" in line]
        self.assertEqual([result["kind"] for result in results], kinds)
        for result in results:
            self.assertEqual((result["steps"], result["batch"], result["sequence"]), (3, 6, 16))
            self.assertLess(0, result["lower_quartile"])
            self.assertLessEqual(result["lower_quartile"], result["tokens_per_second"])
            self.assertLessEqual(result["tokens_per_second"], result["upper_quartile"])
            shares = result["shares"]
            inside = shares.pop("all_to_all")
            self.assertAlmostEqual(sum(shares.values()), 1)
            self.assertTrue(0 <= inside <= shares["forward"] + shares["backward"])
            self.assertEqual(inside > 0 and result["bytes_sent"] > 0, ranks > 1 and result["kind"] != "dense", result)
            # Once a sparse layer: the counts of its dispatch plan.
            self.assertEqual(result["host_reads"], 0 if result["kind"] == "dense" else 2, result)
            # 300 ids, all alike at first
            self.assertAlmostEqual(result["loss"], 5.70, delta=0.1)
        pairs = [(line["time_of"], line["over"]) for line in lines if "ratio" in line]
        self.assertEqual(pairs, [(kinds[1], kinds[0]), (kinds[2], kinds[0]), (kinds[2], kinds[1])])
        return [result["loss"] for result in results]

    def test_train_step_computes_alike_on_one_and_two_ranks(self):
        for one, two in zip(self.check_train_step(1), self.check_train_step(2)):
            self.assertAlmostEqual(one, two, places=5)

    def test_train_step_prints_a_table(self):
        done = program("bench_train_step", "--kind=dense,moe", *SMALL)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"(?m)^dense +\d+\.\d +\d+\.\d +\d+\.\d ")
        self.assertRegex(done.stdout, r"(?m)^time a token, moe / dense: \d+\.\d{4} \(quartiles \d")

    def test_comparison_of_the_replicas_is_timed_on_request(self):
        arguments = ["bench_train_step", "--drift_check", "--kind=dense,moe", "--set=train.drift_check_every=50", *SMALL]
        _, lines = self.lines(program(*arguments, "--json", ranks=2))
        for result in [line for line in lines if "kind" in line]:
            check = result["drift_check"]
            self.assertEqual(check["every"], 50)
            self.assertGreater(check["seconds"], 0)
            steps = 50 * result["batch"] * result["sequence"] / result["tokens_per_second"]
            self.assertAlmostEqual(check["share_of_steps"] * steps / check["seconds"], 1, places=6)
        done = program(*arguments, ranks=2)
        self.assertRegex(done.stdout, r"(?m)^comparison of the replicas, moe: \d+\.\d+ ms, \d+\.\d+ % of the time of 50 steps$")
        self.fails(64, "at least 2", program(*arguments))
        self.fails(64, "--evaluation", program(*arguments, "--evaluation", ranks=2))
        self.fails(64, "is 0", program(*arguments, "--set=train.drift_check_every=0", ranks=2))

    def test_a_watchdog_is_timed_beside_none_and_changes_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            watch = ["--watchdog", os.path.join(folder, "watch")]
            machine, lines = self.lines(program("bench_train_step", "--json", "--kind=moe", *watch, *SMALL, ranks=2))
            self.assertEqual(os.listdir(folder), [])
        results = [line for line in lines if "kind" in line]
        self.assertEqual([result["kind"] for result in results], ["moe", "moe watched"])
        self.assertEqual(results[0]["loss"], results[1]["loss"])
        pairs = [(line["time_of"], line["over"]) for line in lines if "ratio" in line]
        self.assertEqual(pairs, [("moe watched", "moe")])

    def test_evaluation_is_timed_too(self):
        for ranks in (1, 2):
            machine, lines = self.lines(program("bench_train_step", "--json", "--evaluation", "--kind=moe,hyper", *SMALL, ranks=ranks))
            results = [line for line in lines if "kind" in line]
            self.assertEqual([(result["work"], result["steps"], "shares" in result) for result in results],
                             [("evaluation", 3, False)] * 2)
            # HyperExperts start at nothing.
            self.assertEqual(results[0]["loss"], results[1]["loss"])
        done = program("bench_train_step", "--evaluation", "--kind=moe,hyper", *SMALL)
        self.assertRegex(done.stdout, r"(?m)^hyper +\d+\.\d +\d+\.\d +\d+\.\d +5\.\d{3}$")

    def check_switch_step(self, ranks):
        done = program("bench_switch_step", "--json", "--kind=moe,hyper,moe+model.dropout=0.1", *SWITCH_SMALL, ranks=ranks)
        machine, lines = self.lines(done)
        self.assertEqual(machine["ranks"], ranks)
        results = [line for line in lines if "kind" in line]
        self.assertEqual([result["kind"] for result in results], ["moe", "hyper", "moe+model.dropout=0.1"])
        for result in results:
            self.assertEqual((result["work"], result["tokens"]), ("training", 6 * (16 + 5)))
            self.assertLess(0, result["tokens_per_second"])
            # One sparse block in each stack.
            self.assertEqual(result["host_reads"], 2, result)
        self.assertEqual([(line["time_of"], line["over"]) for line in lines if "ratio" in line][0], ("hyper", "moe"))
        return [result["loss"] for result in results]

    def test_switch_step_computes_alike_on_one_and_two_ranks(self):
        for one, two in zip(self.check_switch_step(1), self.check_switch_step(2)):
            self.assertAlmostEqual(one, two, places=4)

    def test_switch_step_evaluates_and_generates(self):
        machine, lines = self.lines(program("bench_switch_step", "--json", "--evaluation", *SWITCH_SMALL))
        results = [line for line in lines if "kind" in line]
        self.assertEqual([(result["work"], result["tokens"]) for result in results], [("evaluation", 126)] * 2)
        self.assertEqual(results[0]["loss"], results[1]["loss"])
        for ranks in (1, 2):
            machine, lines = self.lines(program("bench_switch_step", "--json", "--new_tokens=3", *SWITCH_SMALL, ranks=ranks))
            results = [line for line in lines if "kind" in line]
            self.assertEqual([(result["work"], result["tokens"], "loss" in result) for result in results],
                             [("generation", 18, False)] * 2)
        done = program("bench_switch_step", "--new_tokens=3", *SWITCH_SMALL)
        self.assertRegex(done.stdout, r"(?m)^hyper +\d+\.\d +\d+\.\d +\d+\.\d$")
        self.assertRegex(done.stdout, r"(?m)^time a token, hyper / moe: \d+\.\d{4} \(quartiles \d")
        self.fails(64, "--new_tokens", program("bench_switch_step", "--evaluation", "--new_tokens=3", *SWITCH_SMALL))
        self.fails(64, "encoder-decoder", program("bench_train_step", "--new_tokens=3", *SMALL))

    def test_moe_layer_compares_forms_that_compute_alike(self):
        small = ["--tokens=96", "--width=32", "--ffn=48", "--rounds=3", "--warmup=1", "--threads=1"]
        forms = ["moe", "owner", "source", "bilinear", "per_token", "moe_share"]
        for more in ([], ["--top_k=2"], ["--evaluation"], ["--dtype=bfloat16"]):
            done = program("bench_moe_layer", "--json", "--experts=4,5", "--bottleneck=8", *small, *more)
            machine, lines = self.lines(done)
            self.assertEqual(machine["threads"], 1)
            self.assertEqual([(line["experts"], line["form"]) for line in lines], [(n, form) for n in (4, 5) for form in forms])
            for line in lines:
                self.assertLess(0, line["lower_quartile"])
                self.assertLessEqual(line["lower_quartile"], line["milliseconds"])
                self.assertEqual(line["over"], "moe")
                self.assertLess(line["difference"], 0.02 if "--dtype=bfloat16" in more else 1e-5, line)
            self.assertEqual({line["ratio"] for line in lines if line["form"] == "moe"}, {1})
            self.assertTrue(any(line["difference"] > 0 for line in lines), "all forms are one")
        done = program("bench_moe_layer", "--experts=4", "--bottleneck=8", "--form=moe,source", *small)
        self.assertRegex(done.stdout, r"(?m)^ +4 +8 source +\d+\.\d\d .*\(\d+\.\d{3} to \d+\.\d{3}\)")
        machine, lines = self.lines(program("bench_moe_layer", "--json", "--experts=4", "--bottleneck=8", "--form=moe,gemm", *small))
        self.assertEqual([line["form"] for line in lines], ["moe", "gemm"])
        self.assertIn("CPUs", machine["gpus"])
        # The operations are those of the experts, whatever the form: 12 for each token, column and row of a matrix.
        for line in lines:
            self.assertAlmostEqual(line["tflops"] * line["milliseconds"] * 1e9 / (12 * 96 * 32 * 48), 1)

    def test_small_gemm_compares_with_libtorch(self):
        small = ["--rows=5", "--generated=3", "--tokens=40", "--width=64", "--bottleneck=16", "--hidden=32", "--rounds=2"]
        done = program("bench_small_gemm", *small)
        if "no AVX-512" in done.stderr:
            self.skipTest("this processor has no AVX-512")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(re.findall(r"(?m)^ +5 \S.* +\d+\.\d\d +\d+\.\d +\d+\.\d\d +\d+\.\d +\d+\.\d\d$", done.stdout)), 6, done.stdout)
        self.assertEqual(len(re.findall(r"(?m)^ +3 generation", done.stdout)), 2, done.stdout)
        self.fails(64, "--width is 63", program("bench_small_gemm", "--width=63"))
        self.fails(64, "--bottleneck is 16: expected a multiple of 32",
                   program("bench_small_gemm", "--dtype=bfloat16", "--bottleneck=16"))

    def test_checkpoint_stall_saves_both_ways(self):
        small = [option for option in SMALL if not option.startswith("--steps")] + ["--saves=3", "--steps=2"]
        with tempfile.TemporaryDirectory() as folder:
            done = program("bench_checkpoint_stall", "--json", "--folder", folder, *small, ranks=2)
            machine, lines = self.lines(done)
            for way in ("background", "waiting"):  # checkpoint.keep 1
                checkpoints = os.listdir(os.path.join(folder, way, "checkpoints"))
                self.assertEqual(len([name for name in checkpoints if name.startswith("step_")]), 1, checkpoints)
            table = program("bench_checkpoint_stall", "--folder", folder, *small).stdout
        self.assertEqual(machine["ranks"], 2)
        background, waiting = lines
        self.assertEqual((background["way"], waiting["way"]), ("background", "waiting"))
        for result in lines:
            self.assertEqual(result["saves"], 3)
            for name in ("stall_seconds", "durable_seconds", "step_seconds"):
                self.assertEqual(result[name], sorted(result[name]))
                self.assertLess(0, result[name][0])
        # Each takes two phases, so at least two steps; waiting none.
        self.assertGreaterEqual(background["steps_beside"], 6)
        self.assertEqual(waiting["steps_beside"], 0)
        self.assertNotIn("step_beside_seconds", waiting)
        self.assertRegex(table, r"(?m)^background +\d+\.\d{4} +\d+\.\d{4} +\d+\.\d{4} +\d+\.\d{4} +\d+\.\d{4}$")
        self.assertRegex(table, r"(?m)^waiting .* -$")
        self.fails(64, "--folder", program("bench_checkpoint_stall"))

    def test_bad_options_are_one_error(self):
        self.fails(64, "--steps", program("bench_train_step", "--steps=0"))
        self.fails(78, "model.kind=switch", program("bench_train_step", "--kind=switch"))
        self.fails(78, "moe\\+|modle", program("bench_train_step", "--kind=moe+modle.num_layers=1"))
        self.fails(78, "expert_parallel", program("bench_train_step", "--set", "mesh.expert_parallel=3", *SMALL, ranks=2))
        self.fails(64, "--form", program("bench_moe_layer", "--form=dense"))
        self.fails(64, "--dtype", program("bench_moe_layer", "--dtype=float64"))
        self.fails(78, "top_k", program("bench_moe_layer", "--top_k=9", "--experts=8"))
        self.fails(64, "2 ranks", program("bench_moe_layer", ranks=2))
        self.fails(64, "--operation", program("bench_all_to_all", "--operation=gather"))

    def test_all_to_all_bandwidths_follow_from_size_and_time(self):
        for ranks in (1, 2, 3):
            done = program("bench_all_to_all", "--json", "--max_bytes=262144", "--factor=16", "--rounds=1", "--iterations=2",
                           ranks=ranks)
            machine, lines = self.lines(done)
            self.assertEqual(machine["ranks"], ranks)
            operations = {"all_to_all": 1, "all_reduce": 2, "reduce_scatter": 1, "all_gather": 1}
            self.assertEqual([line["operation"] for line in lines], [name for name in operations for _ in range(4)])
            for line in lines:
                self.assertEqual(line["wrong"], 0)
                self.assertEqual((line["bytes"], line["count"] % ranks), (4 * line["count"], 0))
                algorithm = line["bytes"] / line["microseconds"] / 1e3
                self.assertAlmostEqual(line["algorithm_gb_per_second"] / algorithm, 1)
                bus = algorithm * operations[line["operation"]] * (ranks - 1) / ranks
                self.assertAlmostEqual(line["bus_gb_per_second"], bus, delta=1e-9 * algorithm)

    def test_all_to_all_prints_the_table_of_nccl_tests(self):
        done = program("bench_all_to_all", "--operation=all_reduce", "--max_bytes=64", "--rounds=1", ranks=2)
        self.assertRegex(done.stdout, r"#wrong\n.*\(us\).*\n +64 +16 +float +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d +0\n\Z")

    def test_checkpoints_are_timed_beside_dd(self):
        for ranks in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                done = program("bench_checkpoint", "--json", "--folder", folder, "--mebibytes=12", "--rounds=2", ranks=ranks)
                self.assertEqual(os.listdir(folder), [])
            machine, lines = self.lines(done)
            self.assertEqual(machine["ranks"], ranks)
            cases = {line["case"]: line for line in lines if "case" in line}
            for name in ("save", "digests", "load", "load, no digests", "load, cached", "dd write fsync"):
                self.assertEqual(cases[name]["bytes"], ranks * 12 << 20)
                self.assertLess(0, cases[name]["seconds"])
            shares = {line["digest_share_of"]: line["share"] for line in lines if "share" in line}
            self.assertEqual(sorted(shares), ["load", "load, cached", "save"])
            self.assertLess(0, shares["save"])
        self.fails(64, "--rounds", program("bench_checkpoint", "--rounds=0"))
        self.fails(74, "no_such_folder", program("bench_checkpoint", "--folder=no_such_folder"))

    def check_comparison(self, script, missing, *options):
        with tempfile.TemporaryDirectory() as empty:
            done = run([sys.executable, "-B", os.path.join(SOURCE, "tools", script), "--rounds=1", "--steps=1", "--warmup=0",
                        "--batch=1", "--sequence=8", "--threads=1", "--build", BUILD, *options], HYPERMOE_CACHE=empty)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, f"no {missing} to compare with, so only our own figures follow: .*--install")
        return done.stdout

    def test_comparison_works_without_pytorch(self):
        out = self.check_comparison("bench_against_pytorch", "PyTorch", "--kind=dense", "--layers=1")
        self.assertRegex(out, r"(?m)^dense +\d+\.\d +\([\d.]+ to [\d.]+\) +- +-$")

    def test_comparison_works_without_transformers(self):
        out = self.check_comparison("bench_against_huggingface", "transformers", "--kind=moe", "--layers=2", "--experts=2")
        self.assertRegex(out, r"(?m)^moe +\d+\.\d +\([\d.]+ to [\d.]+\) +- +-$")


if __name__ == "__main__":
    unittest.main()
