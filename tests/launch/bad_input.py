#!/usr/bin/env python3
"""Bad input, through the real program, at 1 and 2 ranks.

Each case must print exactly one "hypermoe: error:" line (one for the job, not one a rank) that names the thing, soon; end
all ranks with the documented exit code; and leave no file behind, nor change one.

    tests/launch/bad_input.py BUILD_FOLDER SOURCE_FOLDER [NAME...]
"""

import os
import shutil
import sys
import tempfile

import job
from bad_input_cases import Case, make_cases, train_arguments

MESSAGE_WITHIN = 2.0  # seconds, on an idle machine
JOB_WITHIN = 6.0
ATTEMPTS = 3  # for the times only: the machine may be busy with something else


def snapshot(folder):
    """Every path below `folder`, with what is in it."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in folders:
            found[os.path.join(parent, name)] = None
        for name in files:
            path = os.path.join(parent, name)
            with open(path, "rb") as file:
                found[path] = file.read()
    return found


def judge(case, run, before, after):
    """What is wrong with a run, times apart: a list of sentences."""
    wrong = job.judge(run, case.code, case.names)
    for path in sorted(set(before) | set(after)):
        if path not in before:
            wrong.append(f"left behind: {path}")
        elif path not in after:
            wrong.append(f"removed: {path}")
        elif before[path] != after[path]:
            wrong.append(f"changed: {path}")
    return wrong


class Bench:
    """The program, and a folder with a good token file, a short run and a model folder to spoil."""

    def __init__(self, build, source, folder):
        self.build, self.source, self.folder = build, source, folder

    def run(self, arguments, ranks):
        return job.start(self.source, ranks, [os.path.join(self.build, "hypermoe")] + arguments, self.folder)

    def must_end_with(self, code, arguments):
        run = self.run(arguments, 1)
        if run.code != code:
            sys.exit(f"{arguments} ended with {run.code}, wanted {code}:\n{run.stderr}")

    def prepare(self):
        with open(os.path.join(self.folder, "good.txt"), "w") as text:
            text.write("The quick brown fox jumps over the lazy dog.\n" * 400)
        self.must_end_with(0, ["prepare", "--input", "good.txt", "--tokenizer", "byte", "--output", "good"])
        self.must_end_with(75, train_arguments(self.source, "run", ["--stop_at_step", "2"]))
        self.must_end_with(0, ["export", "--checkpoint", "run", "--output", "model"])
        self.must_end_with(0, ["import", "--from", "model", "--run_dir", "imported"])

    def try_case(self, case, ranks):
        """Prints the outcome; true if all is as it must be."""
        wrong = []
        for _ in range(ATTEMPTS):
            before = snapshot(self.folder)
            run = self.run(case.arguments, ranks)
            wrong = judge(case, run, before, snapshot(self.folder))
            late = []
            if run.error_at is not None and run.error_at > MESSAGE_WITHIN:
                late.append(f"message after {run.error_at:.1f} s, wanted within {MESSAGE_WITHIN} s")
            if run.seconds > JOB_WITHIN:
                late.append(f"job ended after {run.seconds:.1f} s, wanted within {JOB_WITHIN} s")
            if wrong or not late:
                break
        wrong += late
        message = "-" if run.error_at is None else f"{run.error_at:.2f}"
        print(f"{'FAIL' if wrong else 'ok':4}  np {ranks}  message {message} s  end {run.seconds:.2f} s  {case.name}")
        if wrong:
            print(f"      {' '.join(case.arguments)}\n      " + "\n      ".join(wrong))
            print("      stderr: " + run.stderr.strip().replace("\n", "\n              "))
        sys.stdout.flush()
        return not wrong


def check_judge(bench):
    """A judge that finds nothing wrong anywhere would prove nothing."""
    run = bench.run(["env"], 1)
    case = Case("control", ["env"], 64, ["no such text"])
    wrong = judge(case, run, {"a": b"1", "b": b"1"}, {"a": b"2", "c": b"1"})
    if len(wrong) != 6:
        sys.exit(f"the judge missed faults in a control case, it found only: {wrong}")


def main():
    build, source, wanted = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3:]
    folder = tempfile.mkdtemp(prefix="hypermoe_bad_input_")
    try:
        bench = Bench(build, source, folder)
        bench.prepare()
        check_judge(bench)
        outcomes = [bench.try_case(case, ranks) for case in make_cases(folder, source)
                    if not wanted or case.name in wanted for ranks in case.ranks]
    finally:
        shutil.rmtree(folder)
    print(f"{sum(outcomes)} of {len(outcomes)} runs as they must be")
    return 0 if outcomes and all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
