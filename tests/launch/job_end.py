#!/usr/bin/env python3
"""However ranks fail, the job says so once, ends soon and with the documented exit code: 1, 2 and 4 ranks.

    tests/launch/job_end.py JOB_END_PROGRAM SOURCE_FOLDER
"""

import os
import sys
import tempfile

import job

ENDS_WITHIN = 6.0  # seconds; a hang would end after job.KILL_AFTER
ATTEMPTS = 3  # for the time only
# Fault, exit code, what the line says on one rank and on several ({last}: the last rank).
CASES = [
    ("alike", 65, "error: the file is bad$", "error: the file is bad$"),
    ("stopped", 75, "error: stopped as asked$", "error: stopped as asked$"),
    ("all_throw", 70, "error: sizes differ: 3 and 4$", r"error: rank \d: sizes differ: 3 and 4$"),
    ("one_throws", 71, "error: all-to-all failed$", "error: rank {last}: all-to-all failed$"),
    ("one_runs_out_of_memory", 70, "error: memory ran out", "error: rank {last}: memory ran out"),
    ("one_returns", 74, "error: the disk is full$", "error: rank {last}: the disk is full$"),
    ("no_such_fault", 64, "error: no such fault$", "error: no such fault$"),
]

# Ends that only mpirun sees, on 2 ranks: exit code, what launch/mpirun says.
SILENT_CASES = [
    ("one_is_killed", 137, "a rank was killed by signal 9"),
    ("one_crashes", 139, "a rank died of signal 11"),
    ("one_leaves", 1, "mpirun ended with exit code 1"),
]


def try_silent_case(source, program, fault, code, text):
    """Prints the outcome; the number of failures."""
    run = job.start(source, 2, [program, fault], tempfile.gettempdir())
    wrong = [] if run.code == code else [f"exit code {run.code}, wanted {code}"]
    if text not in run.stderr:
        wrong.append(f"launch/mpirun does not say '{text}'")
    print(f"{'FAIL' if wrong else 'ok':4}  np 2  {run.seconds:.2f} s  {fault}  {'; '.join(wrong)}", flush=True)
    if wrong:
        print(run.stderr)
    return 1 if wrong else 0


def main():
    program, source = map(os.path.abspath, sys.argv[1:3])
    failures = 0
    for ranks in (1, 2, 4):
        for fault, code, alone, together in CASES:
            pattern = alone if ranks == 1 else together.format(last=ranks - 1)
            for _ in range(ATTEMPTS):
                run = job.start(source, ranks, [program, fault], tempfile.gettempdir())
                wrong = job.judge(run, code, [pattern])
                if wrong or run.seconds <= ENDS_WITHIN:
                    break
            else:
                wrong.append(f"ended after {run.seconds:.1f} s, wanted within {ENDS_WITHIN} s")
            print(f"{'FAIL' if wrong else 'ok':4}  np {ranks}  {run.seconds:.2f} s  {fault}  {'; '.join(wrong)}", flush=True)
            if wrong:
                print(run.stderr)
                failures += 1
        run = job.start(source, ranks, [program, "none"], tempfile.gettempdir())
        if run.code != 0 or job.MARK in run.stderr:
            print(f"FAIL  np {ranks}  a job without a fault ended with {run.code}:\n{run.stderr}")
            failures += 1
        if len(job.judge(run, 70, ["no such text"])) != 3:
            print("FAIL  the judge does not see that a good job is no failed one")
            failures += 1
    failures += sum(try_silent_case(source, program, *case) for case in SILENT_CASES)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
