#!/usr/bin/env python3
"""Stopping a real job from outside, and going on with it: signals, the stop file, --max_minutes, launch/keep_running.

One run of 2 ranks is stopped in all ways after each other, and must end up the same, bit for bit, as one that never was.

    tests/launch/stopping.py BUILD_FOLDER SOURCE_FOLDER
"""

import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from job import MARK

RANKS = 2
STEPS = 150
ENDS_WITHIN = 400.0  # seconds; only a job that hangs takes so long, even on a busy machine
NOT_COMPARABLE = ("seconds", "tokens_per_second", "memory_bytes", "bytes_sent", "traffic", "mfu")

failures = []


def expect(condition, what):
    if not condition:
        failures.append(what)
        print(f"FAIL  {what}", flush=True)


def wait_for(condition, what):
    end = time.monotonic() + ENDS_WITHIN
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {ENDS_WITHIN} s for {what}")
        time.sleep(0.01)


class Job:
    """A job that runs; `stderr` once it has ended."""

    def __init__(self, bench, arguments, launcher=None):
        environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        command = (launcher or []) + [os.path.join(bench.source, "launch/mpirun"), "-np", str(RANKS)] + arguments
        self.code = None
        self.stderr_file = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(command, cwd=bench.folder, env=environment, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=self.stderr_file, start_new_session=True)

    def ranks(self):
        """Process ids of the ranks, in their order."""
        found = {}
        for status in glob.glob("/proc/[0-9]*/environ"):
            try:
                pid = int(status.split("/")[2])
                if os.getsid(pid) != self.process.pid:
                    continue
                with open(status, "rb") as file:
                    pairs = dict(pair.split(b"=", 1) for pair in file.read().split(b"\0") if b"=" in pair)
                found[int(pairs[b"OMPI_COMM_WORLD_RANK"])] = pid
            except (OSError, KeyError):
                continue  # has ended, or is mpirun
        return [found[rank] for rank in sorted(found)]

    def end(self):
        """Waits for the end; its exit code."""
        if self.code is not None:
            return self.code
        try:
            self.code = self.process.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.code = "hung"
        self.stderr_file.seek(0)
        self.stderr = self.stderr_file.read()
        return self.code


class Bench:
    def __init__(self, build, source, folder):
        self.build, self.source, self.folder = build, source, folder
        self.program = os.path.join(build, "hypermoe")

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def prepare(self):
        with open(self.path("text.txt"), "w") as text:
            text.write("The quick brown fox jumps over the lazy dog.\n" * 400)
        subprocess.run([self.program, "prepare", "--input", "text.txt", "--tokenizer", "byte", "--output", "text"],
                       cwd=self.folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def command(self, run, *more):
        return [self.program, "pretrain", "--config", os.path.join(self.source, "configs/debug.textproto"), "--run_dir",
                run, "--set", "data.train=text", "--set", f"train.steps={STEPS}", "--set", "train.validation_every=25",
                "--set", "checkpoint.every=50", "--set", "optimizer.warmup_steps=5", *more]

    def start(self, run, *more, launcher=None):
        """Starts the job and waits until it has taken steps of its own."""
        before = len(self.lines(run))
        job = Job(self, self.command(run, *more), launcher)
        wait_for(lambda: job.process.poll() is not None or len(self.lines(run)) >= before + 3, f"steps of {run}")
        return job

    def lines(self, run):
        try:
            with open(self.path(run, "metrics.jsonl")) as file:
                return [line for line in file.read().split("\n")[:-1]]
        except FileNotFoundError:
            return []

    def metrics(self, run):
        """The lines without what depends on the clock or the process."""
        lines = [json.loads(line) for line in self.lines(run)]
        return [{key: value for key, value in line.items() if key not in NOT_COMPARABLE} for line in lines]

    def checkpoints(self, run):
        return glob.glob(self.path(run, "checkpoints", "step_????????"))

    def tensors(self, run):
        """The newest checkpoint's files of tensors, by name."""
        newest = max(self.checkpoints(run))
        files = glob.glob(os.path.join(newest, "*.safetensors"))
        return {os.path.relpath(path, newest): open(path, "rb").read() for path in files}, os.path.basename(newest)

    def expect_stopped(self, job, run, by):
        """That the job has ended with 75, said why in one line, and saved the last step that it logged."""
        code = job.end()
        errors = [line for line in job.stderr.splitlines() if MARK in line]
        expect(code == 75, f"{by}: exit code {code}, wanted 75:\n{job.stderr}")
        expect(len(errors) == 1, f"{by}: {len(errors)} error lines, wanted one: {errors}")
        pattern = rf"stopped after step (\d+) as (the file )?{re.escape(by)} asked; saved in "
        said = re.search(pattern, " ".join(errors))
        expect(said, f"{by}: no line says /{pattern}/: {errors}")
        logged = json.loads(self.lines(run)[-1])["step"]
        expect(said and int(said.group(1)) == logged, f"{by}: the last step logged is {logged}: {errors}")
        expect(self.tensors(run)[1] == f"step_{logged:08}", f"{by}: the newest checkpoint is not that of step {logged}")
        print(f"ok    {by}: stopped after step {logged}", flush=True)


def stop_in_every_way(bench):
    job = bench.start("run")
    job.process.send_signal(signal.SIGUSR1)  # launch/mpirun and mpirun pass it on
    bench.expect_stopped(job, "run", "SIGUSR1")

    job = bench.start("run")
    os.kill(job.ranks()[-1], signal.SIGTERM)
    bench.expect_stopped(job, "run", "SIGTERM")

    job = bench.start("run")
    open(bench.path("run/stop"), "w").close()
    bench.expect_stopped(job, "run", "run/stop")
    expect(not os.path.exists(bench.path("run/stop")), "the stop file is still there")
    expect(os.path.exists(bench.path("run/stopped")), "nothing tells a script that the user has stopped the run")


def stop_by_time(bench):
    for minutes in (0.05, 0.2, 0.5):  # a busy machine may need longer for its first step
        job = bench.start("timed", "--max_minutes", str(minutes), "--set", "train.steps=1000000")
        job.end()
        if "before the first step" not in job.stderr:
            break
    bench.expect_stopped(job, "timed", f"--max_minutes {minutes}")
    expect(not os.path.exists(bench.path("timed/stopped")), "a time limit is taken for the user's wish")


def finish_under_keep_running(bench):
    """A rank dies after a save, the script starts the job again, and it comes to its end."""
    before = bench.checkpoints("run")
    job = bench.start("run", launcher=[os.path.join(bench.source, "launch/keep_running"), "--"])
    last = job.ranks()[-1]
    wait_for(lambda: bench.checkpoints("run") != before, "a checkpoint")
    os.kill(last, signal.SIGKILL)
    code = job.end()
    said = [line for line in job.stderr.splitlines() if line.startswith("keep_running")]
    expect(code == 0 and len(said) == 2 and "start 2 of at most" in said[0], f"keep_running: exit code {code}:\n{job.stderr}")
    print(f"ok    {said}", flush=True)


def compare_with_whole_run(bench):
    whole = Job(bench, bench.command("whole"))
    expect(whole.end() == 0, f"the whole run failed:\n{whole.stderr}")
    expect(bench.metrics("run") == bench.metrics("whole"), "metrics.jsonl differs from that of the run never stopped")
    expect(len(bench.metrics("whole")) == STEPS + STEPS // 25, "metrics.jsonl lacks lines")
    expect(bench.tensors("run") == bench.tensors("whole"), "tensors differ from those of the run never stopped")


def end_at_once(bench):
    """A second signal ends a job that cannot save, for one of its ranks hangs."""
    job = bench.start("hung")
    os.kill(job.ranks()[1], signal.SIGSTOP)
    job.process.send_signal(signal.SIGUSR1)
    time.sleep(1.2)
    expect(job.process.poll() is None, "a job with a stopped rank has ended by one signal")
    job.process.send_signal(signal.SIGUSR1)
    code = job.end()
    errors = [line for line in job.stderr.splitlines() if MARK in line]
    expect(code == 75 and len(errors) == 1 and "second signal" in errors[0], f"second signal: {code}:\n{job.stderr}")
    expect(not bench.checkpoints("hung"), "a second signal still saves")

    # To mpirun, which is no request: its ranks have less than a second.
    job = bench.start("terminated")
    ranks = job.ranks()
    job.process.send_signal(signal.SIGTERM)
    code = job.end()
    expect(code not in (0, 75, "hung") and len(ranks) == RANKS, f"SIGTERM to mpirun: {code}:\n{job.stderr}")
    wait_for(lambda: not job.ranks(), "the ranks of a job that was terminated to end")


def main():
    build, source = map(os.path.abspath, sys.argv[1:3])
    folder = tempfile.mkdtemp(prefix="hypermoe_stopping_")
    try:
        bench = Bench(build, source, folder)
        bench.prepare()
        stop_in_every_way(bench)
        stop_by_time(bench)
        finish_under_keep_running(bench)
        compare_with_whole_run(bench)
        end_at_once(bench)
    finally:
        shutil.rmtree(folder)
    print(f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
