#!/usr/bin/env python3
"""A rank that is stopped, stuck or dead ends the whole job soon, and is named; one that works is left alone.

tests/launch/fault_program.cc is `hypermoe pretrain` with the faults built in.

    tests/launch/hang.py BUILD_FOLDER SOURCE_FOLDER [--all]     # --all: every case, and more steps without an alarm
"""

import concurrent.futures
import dataclasses
import glob
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import uuid

import job

HANG = 2.0  # seconds: runtime.hang_seconds of the jobs that hang
NAMED_WITHIN = HANG + 2.0  # of the fault
GONE_WITHIN = 10.0  # of the fault
CLEAN_WITHIN = 5.0  # of the job's end
ATTEMPTS = 3  # for times only, which a busy machine may spoil
AT_ONCE = 3
FAULT = "fault_program:"
ROWS, ROW_TOKENS = 4, 16
STEP_TOKENS = ROWS * ROW_TOKENS


@dataclasses.dataclass
class Case:
    """One fault. `start` is the folder in `folder` that the run begins as, "" for a new one."""

    ranks: int
    rank: int
    point: str
    action: str
    often: bool = False  # also without --all
    step: int = 3
    start: str = ""

    @property
    def name(self):
        return f"np {self.ranks}  rank {self.rank} {self.action} at {self.point}"

    @property
    def phase(self):
        """Where the report must see the rank; a collective may belong to several."""
        return r"\w+" if self.point in ("all_to_all", "all_reduce") else self.point


STOPS = [
    Case(2, 0, "init", "stop", step=0),
    Case(4, 3, "load", "stop", often=True, step=0, start="saved"),
    Case(2, 1, "data", "stop"),
    Case(4, 0, "forward", "stop", often=True),
    Case(4, 2, "all_to_all", "stop", often=True),
    Case(2, 0, "backward", "stop"),
    Case(4, 1, "reduce", "stop"),
    Case(2, 1, "optimizer", "stop"),
    Case(2, 1, "evaluate", "stop", often=True),
    Case(4, 0, "save", "stop", often=True),
]
SLEEPS = [
    Case(2, 1, "init", "sleep", step=0),
    Case(4, 2, "load", "sleep", step=0, start="saved"),
    Case(4, 1, "data", "sleep", often=True),
    Case(2, 0, "forward", "sleep"),
    Case(4, 3, "backward", "sleep", often=True),
    Case(2, 1, "optimizer", "sleep"),
    Case(4, 0, "evaluate", "sleep"),
    Case(2, 0, "save", "sleep", often=True),
]
DEATHS = [
    Case(ranks, rank, point, action, often=(ranks, rank, point, action) in {
        (4, 3, "forward", "kill"), (2, 0, "save", "segv"), (4, 1, "evaluate", "abort"), (2, 1, "data", "exit0"),
        (4, 0, "all_to_all", "exit1")}, step=0 if point == "init" else 3)
    for ranks, rank in ((2, 0), (2, 1), (4, 0), (4, 1), (4, 3))
    for point in ("init", "data", "forward", "all_to_all", "evaluate", "save")
    for action in ("kill", "segv", "abort", "exit0", "exit1")
]


class Bench:
    """Programs, data and scratch space of all jobs."""

    def __init__(self, build, source, folder):
        self.build, self.source, self.folder = build, source, folder
        with open(os.path.join(folder, "text.txt"), "w") as file:
            file.write("What is done is done, and what is not is not. " * 2000)
        self.hypermoe = os.path.join(build, "hypermoe")
        self.must_end_well(job.start(source, 1, [self.hypermoe, "prepare", "--input", "text.txt", "--tokenizer", "byte",
                                                 "--output", "text"], folder))

    @staticmethod
    def must_end_well(run, code=0):
        if run.code != code:
            sys.exit(f"a job without a fault ended with {run.code}, wanted {code}:\n{run.stderr}")
        return run

    def options(self, run_dir, settings):
        pairs = ["data.train=text", f"train.batch_size={ROWS}", "train.micro_batches=1", f"model.sequence_length={ROW_TOKENS}",
                 "train.validation_every=4", "train.validation_windows=4", "checkpoint.every=4", "runtime.threads=1",
                 "mesh.expert_parallel=2", *settings]
        options = ["--config", os.path.join(self.source, "configs/debug.textproto"), "--run_dir", run_dir]
        for pair in pairs:
            options += ["--set", pair]
        return options

    def pretrain(self, ranks, run_dir, settings, more=(), kill_after=job.KILL_AFTER):
        return job.start(self.source, ranks, [self.hypermoe, "pretrain", *self.options(run_dir, settings), *more],
                         self.folder, kill_after=kill_after)


class FaultyJob:
    """Runs a case in a run folder of its own, and knows the processes and files of its job from others'."""

    def __init__(self, bench, case, hang_seconds=HANG, kill_after=job.KILL_AFTER):
        self.tag = uuid.uuid4().hex
        self.run_dir = os.path.join(bench.folder, f"run_{self.tag}")
        if case.start:
            shutil.copytree(os.path.join(bench.folder, case.start), self.run_dir)
        self.places = [tempfile.mkdtemp(dir=bench.folder), tempfile.mkdtemp(prefix="hypermoe_", dir="/dev/shm")]
        fault = f"{case.rank},{case.point},{case.step},{case.action}"
        settings = ["train.steps=200", f"runtime.hang_seconds={hang_seconds}"]
        self.run = job.start(
            bench.source, case.ranks,
            [os.path.join(bench.build, "tests/fault_program"), fault, *bench.options(self.run_dir, settings)], bench.folder,
            {"HYPERMOE_TEST_JOB": self.tag, "TMPDIR": self.places[0], "OMPI_MCA_btl_vader_backing_directory": self.places[1]},
            kill_after)
        self.fault_at = next((at for at, line in self.run.lines if line.startswith(FAULT)), None)

    def processes(self):
        """Ids of what is left of the job, whoever its parent is now."""
        left = []
        for path in glob.glob("/proc/[0-9]*/environ"):
            try:
                with open(path, "rb") as file:
                    if f"HYPERMOE_TEST_JOB={self.tag}".encode() in file.read().split(b"\0"):
                        left.append(int(path.split("/")[2]))
            except OSError:
                pass  # it has ended
        return left

    def files(self):
        """What Open MPI has left in its session folder and in shared memory."""
        return [os.path.join(place, name) for root in self.places for place, _, names in os.walk(root) for name in names]

    def leftovers(self):
        until = time.monotonic() + CLEAN_WITHIN
        while time.monotonic() < until and (self.processes() or self.files()):
            time.sleep(0.1)
        return ([f"process {process} is left" for process in self.processes()] +
                [f"file {name} is left" for name in self.files()])

    def clean_up(self):
        for process in self.processes():
            os.kill(process, signal.SIGKILL)
        for place in self.places:
            shutil.rmtree(place, ignore_errors=True)


def wrong_report(case, run_dir, run):
    """What is wrong with what a job that hung has said: a list of sentences."""
    what = "no sign of life for .* last seen in" if case.action == "stop" else "alive, but without progress for .*;"
    step = "no step yet" if case.step == 0 else r"step \d+"
    wrong = job.judge(run, 72, [rf"error: rank {case.rank} hangs: {what} {step}, phase {case.phase}, .*collective"])
    lines = [line.strip() for _, line in run.lines]
    for rank in range(case.ranks):
        pattern = rf"rank {rank}: (silent|stuck|waits) for .* phase \w+, (inside|after) collective \d+ \(\w+ of group '\w+'\)"
        if sum(re.match(pattern, line) is not None for line in lines) != 1:
            wrong.append(f"not one line says what rank {rank} was doing")
    reports = glob.glob(os.path.join(run_dir, "hang_*.txt"))
    if len(reports) != 1:
        return wrong + [f"{len(reports)} reports in the run folder"]
    with open(reports[0]) as file:
        missing = [line for line in file.read().splitlines()[1:] if line not in lines]
    return wrong + [f"only the report has: {line}" for line in missing]


def try_case(bench, case):
    """(what is wrong, whether it is times alone, the job)"""
    faulty = FaultyJob(bench, case)
    try:
        run, late, wrong = faulty.run, [], []
        if faulty.fault_at is None:
            return ["the fault did not happen"], False, run
        if case.action in ("stop", "sleep"):
            wrong += wrong_report(case, faulty.run_dir, run)
            if run.error_at is not None and run.error_at - faulty.fault_at > NAMED_WITHIN:
                late.append(f"named after {run.error_at - faulty.fault_at:.1f} s, wanted within {NAMED_WITHIN} s")
        elif run.code in (0, "hung"):
            wrong.append(f"exit code {run.code}")
        gone = run.seconds - faulty.fault_at - (HANG if case.action in ("stop", "sleep") else 0)
        if gone > GONE_WITHIN:
            late.append(f"gone after {gone:.1f} s, wanted within {GONE_WITHIN} s")
        wrong += faulty.leftovers()
        return wrong + late, not wrong, run
    finally:
        faulty.clean_up()


def judge_case(bench, case):
    for _ in range(ATTEMPTS):
        wrong, times_alone, run = try_case(bench, case)
        if not wrong or not times_alone:
            break
    print(f"{'FAIL' if wrong else 'ok':4}  {run.seconds:4.1f} s  {case.name}  {'; '.join(wrong)}", flush=True)
    if wrong:
        print(run.stderr, flush=True)
    return not wrong


def judge_control(bench):
    """With the watchdog off nobody notices: the other cases prove that it is the watchdog that does."""
    case = Case(2, 1, "forward", "stop")
    faulty = FaultyJob(bench, case, hang_seconds=0, kill_after=HANG + 5)
    faulty.clean_up()
    good = faulty.run.code == "hung" and faulty.fault_at is not None and job.MARK not in faulty.run.stderr
    print(f"{'ok' if good else 'FAIL':4}  without a watchdog: {faulty.run.code}", flush=True)
    return good


def judge_restart(bench):
    """The same command goes on in the folder of a job that hung, and leaves no heartbeats."""
    # By then the checkpoint of step 4 is there, for the next save has waited for it.
    case = Case(2, 0, "optimizer", "sleep", step=10)
    faulty = FaultyJob(bench, case)
    faulty.clean_up()
    run = bench.pretrain(2, faulty.run_dir, ["train.steps=200", f"runtime.hang_seconds={HANG}"], ["--stop_at_step", "14"])
    good = (faulty.run.code == 72 and run.code == 75 and "resuming from" in run.stderr
            and not os.path.exists(os.path.join(faulty.run_dir, "heartbeats")))
    print(f"{'ok' if good else 'FAIL':4}  restart after a hang: {faulty.run.code}, {run.code}", flush=True)
    if not good:
        print(run.stderr)
    return good


def step_seconds(run_dir):
    with open(os.path.join(run_dir, "metrics.jsonl")) as file:
        lines = [json.loads(line) for line in file]
    return sorted(STEP_TOKENS / line["tokens_per_second"] for line in lines if line["kind"] == "train")


def judge_alarms(bench, steps):
    """No alarm while a job works, with a limit of 20 times its slow steps."""
    run_dir, settings = os.path.join(bench.folder, "alarms"), [
        f"train.steps={steps}", "train.validation_every=500", "checkpoint.every=500", "checkpoint.keep=1",
        "model.num_layers=1"]
    first = min(300, steps // 4)
    patience = steps  # seconds, for a busy machine
    bench.must_end_well(bench.pretrain(2, run_dir, settings, ["--stop_at_step", str(first)], patience), 75)
    seconds = step_seconds(run_dir)
    # Below a second it is the machine, not the job, that is measured.
    limit = max(1.0, 20 * seconds[int(0.999 * (len(seconds) - 1))])
    run = bench.pretrain(2, run_dir, settings + [f"runtime.hang_seconds={limit:.3f}"], kill_after=patience)
    good = run.code == 0 and len(step_seconds(run_dir)) == steps
    print(f"{'ok' if good else 'FAIL':4}  {run.seconds:4.1f} s  {steps - first} steps without an alarm, limit {limit:.2f} s",
          flush=True)
    if not good:
        print(run.stderr)
    return good


def main():
    build, source = map(os.path.abspath, sys.argv[1:3])
    everything = "--all" in sys.argv[3:]
    with tempfile.TemporaryDirectory(prefix="hypermoe_hang.") as folder:
        bench = Bench(build, source, folder)
        bench.must_end_well(bench.pretrain(4, "saved", ["train.steps=200"], ["--stop_at_step", "4"]), 75)
        cases = [case for case in STOPS + SLEEPS + DEATHS if everything or case.often]
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            jobs = [pool.submit(judge_case, bench, case) for case in cases]
            jobs += [pool.submit(judge_control, bench), pool.submit(judge_restart, bench)]
            good = [done.result() for done in jobs]
        good.append(judge_alarms(bench, 10300 if everything else 2300))
    print(f"{good.count(False)} of {len(good)} failed")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
