#!/usr/bin/env python3
"""tools/from_scratch: its statistics against values computed by hand, and the whole of it on a tiny text.

    tests/tools/from_scratch_test.py BUILD_FOLDER
"""

import fcntl
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(sys.argv.pop(1))
HYPERMOE = os.path.join(BUILD, "hypermoe")
CONFIGS = os.path.join(SOURCE, "configs", "from_scratch")
KINDS = ("moe", "hyper", "moe_share")
sys.path.insert(0, os.path.join(SOURCE, "tools"))

import from_scratch_results as results  # noqa: E402
import seed_statistics  # noqa: E402

SMALL = []
for setting in ("model.num_layers=1", "model.hidden_size=16", "model.num_heads=2", "model.ffn_size=16", "model.num_experts=4",
                "model.sequence_length=32", "train.batch_size=4", "optimizer.warmup_steps=1", "checkpoint.every=1"):
    SMALL += ["--set", setting]
# 8 times 32 bytes, 5 words, 4 lines.
TEST_TEXT = "one two  three\n four,five.\n\nsix\n" * 8


def text_of(words):
    """Different enough from place to place that rows are not alike."""
    return " ".join(str(number * number % 997) for number in range(words))


def run(*arguments):
    return subprocess.run([sys.executable, "-B", os.path.join(SOURCE, "tools", "from_scratch"), "--build", BUILD, *arguments],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)


def read(*parts):
    with open(os.path.join(*parts), encoding="utf-8") as file:
        return file.read()


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def metrics(folder):
    return [json.loads(line) for line in read(folder, "metrics.jsonl").splitlines()]


def result(kind, seed, nats, validation=1.0):
    return {"kind": kind, "seed": seed, "parameters": 1234567, "active": 1000, "steps": 10, "train_tokens": 5120,
            "training_loss": 2.0, "validation_loss": validation, "tokens_per_second": 1000.0, "test_nats": nats, "program": "abc",
            "settings": {"test_bytes": 1000, "test_words": 200}}


class Statistics(unittest.TestCase):
    def test_quantiles_are_those_of_the_tables(self):
        for freedom, expected in ((1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (9, 2.2622), (30, 2.0423)):
            self.assertAlmostEqual(seed_statistics.t_quantile(freedom), expected, places=4)

    def test_interval(self):
        # Mean 3, sample variance (4 + 1 + 9) / 2 = 7, half width 4.30265 sqrt(7 / 3) = 6.57242.
        mean, half = seed_statistics.interval([1.0, 2.0, 6.0])
        self.assertEqual(mean, 3)
        self.assertAlmostEqual(half, 6.57242, places=4)
        self.assertEqual(seed_statistics.interval([5.0]), (5.0, None))

    def test_page_pairs_by_seed(self):
        # hyper - moe in nats a byte, by seeds: -0.01, -0.012, -0.014: mean -0.012, half width 4.30265 * 0.002 / sqrt(3) =
        # 0.004968. In nats a word 5 times that: exp(-0.06) = 0.942, from exp(-0.08484) = 0.919 to exp(-0.03516) = 0.965.
        # The validation losses differ by 0, 0.3, -0.09: mean 0.07, half width 4.30265 * 0.204206 / sqrt(3) = 0.5073.
        moe = [result("moe", 1, 1500), result("moe", 2, 1700), result("moe", 3, 1600), result("moe", 4, 1000)]
        hyper = [result("hyper", 3, 1586, 0.91), result("hyper", 1, 1490), result("hyper", 2, 1688, 1.3)]
        page = results.results_page(hyper + moe, KINDS)
        self.assertIn("| hyper - moe | 3 | +0.0000 (+0.0000 to +0.0000) | +0.0700 (-0.4373 to +0.5773) | "
                      "**-0.0120 (-0.0170 to -0.0070)** |", page)
        self.assertIn("| **0.942 (0.919 to 0.965)** |", page)
        # Means of a kind take all its runs: of hyper (1.49 + 1.688 + 1.586) / 3 = 1.588, half width 4.30265 * 0.0990152 / sqrt(3).
        self.assertRegex(page, r"\| hyper \| 3 \| 1,234,567 \| 1,000 \| .* \| 1\.5880 ± 0\.2460 \| ")
        self.assertRegex(page, r"\| moe \| 4 \| ")
        # A run alone: exp(1500 / 200) = 1808.0 a word, 1.5 / ln 2 = 2.1640 bits a byte.
        self.assertRegex(page, r"\| 1 \| moe \| 2\.0000 \| 1\.0000 \| 1\.5000 \| 2\.1640 \| 1,808\.0 \| 1,000 \|")

    def test_page_of_one_seed_has_no_interval(self):
        page = results.results_page([result("moe", 1, 1500), result("hyper", 1, 1490)], KINDS)
        self.assertRegex(page, r"\| hyper - moe \| 1 \| \+0\.0000 \| \+0\.0000 \| -0\.0100 \| -0\.0144 \| 0\.951 \|")
        self.assertNotIn("nan", page)
        self.assertNotIn("paired difference", results.results_page([result("hyper", 1, 1490)], KINDS))

    def test_training_loss_is_that_of_the_last_tenth(self):
        lines = [{"kind": "train", "step": step, "tokens": 8 * step, "loss": 100 - step, "tokens_per_second": step}
                 for step in range(1, 31)]
        lines.insert(10, {"kind": "validation", "step": 10, "loss": 7.0})
        lines.append({"kind": "validation", "step": 30, "loss": 6.0})
        self.assertEqual(results.training_summary(lines), {"steps": 30, "train_tokens": 240, "training_loss": 71,
                                                           "validation_loss": 6.0, "tokens_per_second": 15.5})


class Configs(unittest.TestCase):
    def content(self, kind):
        lines = [line.split("#")[0].split() for line in read(CONFIGS, f"{kind}.textproto").splitlines()]
        return [" ".join(words) for words in lines if words]

    def test_differ_in_their_kind_alone(self):
        self.assertEqual(sorted(os.listdir(CONFIGS)), sorted(f"{kind}.textproto" for kind in KINDS))
        moe = self.content("moe")
        self.assertEqual(moe.count("kind: moe"), 1)
        for kind in KINDS:
            self.assertEqual(self.content(kind), [f"kind: {kind}" if line == "kind: moe" else line for line in moe])

    def test_say_their_size_at_the_head(self):
        with tempfile.TemporaryDirectory() as folder:
            write(os.path.join(folder, "a.txt"), text_of(3000))
            subprocess.run([HYPERMOE, "prepare", "--input", os.path.join(folder, "a.txt"), "--output",
                            os.path.join(folder, "a")], check=True, capture_output=True)
            for kind in KINDS:
                done = subprocess.run(
                    [HYPERMOE, "pretrain", "--config", os.path.join(CONFIGS, f"{kind}.textproto"), "--run_dir",
                     os.path.join(folder, kind), "--set", f"data.train={folder}/a", "--set", "train.steps=1",
                     "--set", "optimizer.warmup_steps=0",
                     "--set", "data.validation_fraction=0.01"], capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stderr)
                told = re.search(r"(\d+) parameters \((\d+) active for a token\), ([\d.]+) MFLOP", done.stderr)
                self.assertIn(f"# Parameters  {int(told[1]):,}, of them {int(told[2]):,} active for a token\n"
                              f"# Training    {float(told[3]):.1f} million floating-point operations a token\n\n",
                              read(CONFIGS, f"{kind}.textproto"))


class Whole(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.data = os.path.join(self.folder, "data")
        self.out = os.path.join(self.folder, "out")
        paragraphs = [{"context": text_of(200 + number), "qas": []} for number in (0, 1, 0, 2)]
        squad = {"data": [{"title": "a", "paragraphs": paragraphs[:2]}, {"title": "b", "paragraphs": paragraphs[2:]}]}
        write(os.path.join(self.data, "squad", "train-v1.1.json"), json.dumps(squad))
        write(os.path.join(self.data, "wikitext2-raw", "wiki.test.raw"), TEST_TEXT)

    def tool(self, *arguments, steps=3):
        return run("--data", self.data, "--out", self.out, "--kinds=moe,hyper", "--seeds=2", "--steps", str(steps), *SMALL,
                   *arguments)

    def works(self, *arguments):
        done = self.tool(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def fails(self, code, pattern, done):
        self.assertEqual(done.returncode, code, done.stderr)
        errors = [line for line in done.stderr.splitlines() if line.startswith("from_scratch: error: ")]
        self.assertEqual(len(errors), 1, done.stderr)
        self.assertRegex(errors[0], pattern)
        self.assertNotIn("Traceback", done.stderr)

    def check_result(self, kind, seed, page):
        """Every number of a run against its run folder and `hypermoe evaluate`."""
        folder = os.path.join(self.out, f"{kind}-{seed}")
        found = json.loads(read(folder, "result.json"))
        lines = metrics(folder)
        train = [line for line in lines if line["kind"] == "train"]
        self.assertEqual([line["step"] for line in train], [1, 2, 3])
        self.assertEqual((found["kind"], found["seed"], found["steps"], found["train_tokens"]), (kind, seed, 3, 384))
        self.assertEqual(found["training_loss"], train[-1]["loss"])
        self.assertEqual(found["validation_loss"], lines[-1]["loss"])
        evaluated = subprocess.run([HYPERMOE, "evaluate", "--checkpoint", folder, "--data",
                                    os.path.join(self.out, "tokens", "test")], capture_output=True, text=True, check=True)
        test = json.loads(evaluated.stdout.splitlines()[-1])
        # Every byte but the first, and the end of the text.
        self.assertEqual(test["tokens"], 256)
        nats = test["loss"] * 256
        self.assertAlmostEqual(found["test_nats"] / nats, 1, places=6)
        self.assertIn(f"| {seed} | {kind} | {found['training_loss']:.4f} | {found['validation_loss']:.4f} | {nats / 256:.4f} | "
                      f"{nats / 256 / math.log(2):.4f} | {math.exp(nats / 72):,.1f} | ", page)

    def test_trains_evaluates_and_compares(self):
        done = self.works()
        paragraphs = [json.loads(line)["text"] for line in read(self.out, "tokens", "train.jsonl").splitlines()]
        self.assertEqual(paragraphs, [text_of(200), text_of(201), text_of(202)])
        self.check_result("hyper", 2, done.stdout)
        self.assertEqual(read(self.out, "results.md"), done.stdout)
        # The same seed is the same data and the same start: hyper then computes what moe does. Another seed is not.
        first = {name: metrics(os.path.join(self.out, name))[0]["loss"] for name in ("moe-1", "hyper-1", "moe-2", "hyper-2")}
        self.assertAlmostEqual(first["moe-1"], first["hyper-1"], places=5)
        self.assertAlmostEqual(first["moe-2"], first["hyper-2"], places=5)
        self.assertNotAlmostEqual(first["moe-1"], first["moe-2"], places=5)

        # Once more: nothing is done again.
        before = {name: read(self.out, name, "log.txt") for name in first}
        again = self.works()
        self.assertEqual(again.stdout, done.stdout)
        self.assertEqual(before, {name: read(self.out, name, "log.txt") for name in first})
        # A run that had been trained but not evaluated is not trained again: seconds are never the same twice.
        lines = metrics(os.path.join(self.out, "hyper-2"))
        os.remove(os.path.join(self.out, "hyper-2", "result.json"))
        self.assertEqual(self.works().stdout, done.stdout)
        self.assertEqual(metrics(os.path.join(self.out, "hyper-2")), lines)
        # Results are of their settings and texts alone.
        self.fails(64, r"moe-1/result\.json was made with other settings", self.tool("--set", "model.dropout=0.1"))
        write(os.path.join(self.data, "wikitext2-raw", "wiki.test.raw"), TEST_TEXT + "more\n")
        self.fails(64, "holds runs on other texts", self.tool())

    def test_goes_on_with_a_run_that_was_stopped_on_own_texts(self):
        train, test = (os.path.join(self.folder, name) for name in ("mine.txt", "other.txt"))
        write(train, text_of(900))
        shutil.copy(os.path.join(self.data, "wikitext2-raw", "wiki.test.raw"), test)
        shutil.rmtree(self.data)
        own = ["--train_text", train, "--test_text", test, "--kinds=moe_share"]
        self.works(*own, "--seeds=1")
        self.fails(74, "no finished run", self.tool("--kinds=hyper", "--finished"))
        self.fails(78, "hyper, seed 1, ended with exit code 78: .*modle",
                   self.tool(*own, "--kinds=hyper", "--seeds=1", "--set", "modle.dropout=0"))

        folder = os.path.join(self.out, "moe_share-2")
        command = [HYPERMOE, "pretrain", "--config", os.path.join(CONFIGS, "moe_share.textproto"), "--run_dir", folder,
                   "--stop_at_step=2"]
        for override in json.loads(read(self.out, "moe_share-1", "result.json"))["settings"]["set"]:
            command += ["--set", override.replace("runtime.seed=1", "runtime.seed=2")]
        self.assertEqual(subprocess.run(command, capture_output=True).returncode, 75)
        stopped = metrics(folder)
        done = self.works(*own)
        # The seconds in the lines show that these steps were not taken again.
        self.assertEqual(metrics(folder)[:len(stopped)], stopped)
        self.check_result("moe_share", 2, done.stdout)
        self.assertEqual(self.works(*own, "--finished").stdout, done.stdout)

    def test_bad_arguments_are_one_error(self):
        self.fails(64, "--kinds is moe,dense: expected some of moe,hyper,moe_share", self.tool("--kinds=moe,dense"))
        self.fails(64, "--seeds is 0", self.tool("--seeds=0"))
        self.fails(64, "--test_text is a.jsonl: expected plain text", self.tool("--test_text=a.jsonl"))
        self.fails(74, "nowhere/squad/train-v1.1.json could not be read", self.tool("--data=nowhere"))
        self.fails(74, "nowhere/hypermoe is missing", self.tool("--build=nowhere"))
        write(os.path.join(self.data, "squad", "train-v1.1.json"), '{"data": [{"title": "a"}]}')
        self.fails(65, "is not a SQuAD file", run("--data", self.data, "--out", os.path.join(self.folder, "other")))

    def test_one_at_a_time(self):
        os.makedirs(self.out)
        with open(os.path.join(self.out, "lock"), "w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.fails(64, "is in use by another tools/from_scratch", self.tool())
        self.assertEqual(os.listdir(self.out), ["lock"])


if __name__ == "__main__":
    unittest.main()
