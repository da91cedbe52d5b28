#!/usr/bin/env python3
"""The runner of tools/gpu_check: limits, endings, report and table.

    tests/tools/gpu_check_runner_test.py
"""

import json
import os
import sys
import time
import unittest
import unittest.mock

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(SOURCE, "tools"))

import gpu_check_runner  # noqa: E402
import gpu_check_steps  # noqa: E402
from in_folder import InFolder  # noqa: E402


def is_running(process):
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


class RunnerTest(InFolder):
    def setUp(self):
        super().setUp()
        silence = unittest.mock.patch.object(gpu_check_runner, "say")
        silence.start()
        self.addCleanup(silence.stop)

    def runner(self):
        return gpu_check_runner.Runner(100.0, self.folder, {"gpu": None})

    def outcome(self, script, limit=10.0, **options):
        runner = self.runner()
        runner.run("a step", ["bash", "-c", script], dict(os.environ), limit, **options)
        return runner.outcomes[0]

    def test_a_step_that_works_shows_its_figure(self):
        outcome = self.outcome("echo speed 7", figure=lambda output: output.split()[1])
        self.assertEqual((outcome.result, outcome.note, outcome.exit_code), ("ok", "7", 0))

    def test_a_step_fails_by_its_exit_code_output_or_signal(self):
        outcome = self.outcome("echo one; echo 'hypermoe: error: no memory'; echo three; exit 3")
        self.assertEqual((outcome.result, outcome.exit_code), ("FAILED", 3))
        self.assertEqual(outcome.note, "exit code 3: hypermoe: error: no memory")
        outcome = self.outcome("echo fine", judge=lambda output: "not what was wanted" if output == "fine\n" else "")
        self.assertEqual((outcome.result, outcome.note), ("FAILED", "not what was wanted"))
        self.assertEqual(self.outcome("kill -KILL $$").note, "exit code -9: no output")

    def test_colours_are_taken_out(self):
        outcome = self.outcome(r"printf '\033[0;32m[  PASSED  ] \033[m3 tests.\r\n'", figure=gpu_check_steps.tests_figure)
        self.assertEqual(outcome.note, "3 passed")

    def test_a_program_that_is_not_there_fails(self):
        runner = self.runner()
        self.assertFalse(runner.run("a step", [self.path("nothing")], {}, 10.0))
        self.assertRegex(runner.outcomes[0].note, "nothing: No such file")

    def test_a_step_that_hangs_is_ended_with_all_that_it_started(self):
        # set -m: the sleeping child is in a process group of its own, as mpirun's ranks are. It ignores SIGTERM.
        started = time.monotonic()
        outcome = self.outcome("set -m; (trap '' TERM; echo $BASHPID; while :; do sleep 0.1; done) & wait", 0.5)
        self.assertLess(time.monotonic() - started, 5)
        self.assertRegex(outcome.note, r"^ended after 0 s, its limit; last line: \d+$")
        self.assertEqual((outcome.result, outcome.exit_code), ("FAILED", None))
        self.assertFalse(is_running(int(outcome.note.split()[-1])))

    def test_what_a_good_step_leaves_behind_is_ended(self):
        outcome = self.outcome("sleep 100 & echo $!", figure=str.strip)
        self.assertEqual(outcome.result, "ok")
        self.assertFalse(is_running(int(outcome.note)))

    def test_a_long_step_shows_how_far_it_is(self):
        with unittest.mock.patch.object(gpu_check_runner, "SHOW_EVERY", 0.1):
            self.outcome("echo '[3/7] compiling'; sleep 0.5")
        said = [call.args[0] for call in gpu_check_runner.say.call_args_list]
        self.assertTrue(any("a step: [3/7] compiling" in line for line in said), said)

    def test_report_and_log_are_there_after_every_step(self):
        runner = self.runner()
        with open(runner.report_path, encoding="utf-8") as file:
            self.assertEqual(json.load(file)["steps"], [])
        for code, ok in ((0, True), (5, False), (0, False)):
            runner.run("a step", ["sh", "-c", f"echo words; exit {code}"], {}, 10.0)
            with open(runner.report_path, encoding="utf-8") as file:
                report = json.load(file)
            self.assertEqual((report["ok"], len(report["steps"])), (ok, len(runner.outcomes)))
        self.assertEqual([step["exit_code"] for step in report["steps"]], [0, 5, 0])
        self.assertEqual((report["budget"], report["machine"]), (100.0, {"gpu": None}))
        with open(runner.log_path, encoding="utf-8") as file:
            self.assertEqual(file.read().count("\nwords\n"), 3)

    def test_table(self):
        runner = self.runner()
        runner.add(gpu_check_runner.Outcome("first", "ok", 1.25, "3 passed"))
        runner.skip("the second", "no time")
        runner.fail("third", "x" * 200)
        first, *rows, last = runner.table().splitlines()
        self.assertEqual(first, "step        result    seconds  key figure, first error, or why it was skipped")
        self.assertEqual(rows, ["first       ok            1.2  3 passed", "the second  skipped       0.0  no time",
                                "third       FAILED        0.0  " + "x" * 137 + "..."])
        self.assertEqual(last, "1 ok, 1 failed, 1 skipped in 0 of 100 s")

    def test_first_error(self):
        for output, error in (
                ("[ RUN ] StatusError.Says\na_test.cc:5: Failure\nExpected: 1\n[  FAILED  ] StatusError.Says\n",
                 "a_test.cc:5: Failure Expected: 1"),
                ("FAILED: a.o\na.cc:3:1: error: expected ;\nninja: build stopped\n", "a.cc:3:1: error: expected ;"),
                ("CMake Error at a.txt:7 (message):\n  no compiler\n\n", "CMake Error at a.txt:7 (message): no compiler"),
                ("========= COMPUTE-SANITIZER\n========= Invalid __global__ read of size 4 bytes\n=========     at a\n",
                 "========= Invalid __global__ read of size 4 bytes"),
                ("one\ntwo\n\n", "two"), ("", "")):
            self.assertEqual(gpu_check_runner.first_error(output), error)

    def test_figures(self):
        tests = "[  SKIPPED ] A.B (0 ms)\n[  PASSED  ] 12 tests.\n[  SKIPPED ] 2 tests, listed below:\n[  SKIPPED ] A.B\n"
        self.assertEqual(gpu_check_steps.tests_figure(tests), "12 passed, 2 skipped")
        self.assertEqual(gpu_check_steps.tests_figure("[  PASSED  ] 1 test.\n"), "1 passed")
        self.assertEqual(gpu_check_steps.summary_figure("========= ERROR SUMMARY: 4 errors\n"), "ERROR SUMMARY: 4 errors")
        self.assertEqual(gpu_check_steps.libtorch_figure("a\nLibTorch     2.11.0\n"), "LibTorch     2.11.0")


if __name__ == "__main__":
    unittest.main()
