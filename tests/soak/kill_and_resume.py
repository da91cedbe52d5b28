#!/usr/bin/env python3
"""Kills training at random ranks and times, resumes it, and compares it bit for bit with a run that nobody touched.

    tests/soak/kill_and_resume.py --kills 20
    tests/soak/kill_and_resume.py --mean_seconds 60 --kills 60 --steps 100000 --save_every 300 --min_goodput 0.8

One reference run is trained without interruption. Then runs of the same seed get SIGKILLs, each at a random rank: inside a save
(when its temporary folder appears), while starting, while loading, inside an evaluation, or just anywhere; with
--mean_seconds after times drawn from an exponential distribution. After every kill the job must end by itself within 10 s with
an exit code that a restart loop goes on from, and leave no process and no shared memory; every checkpoint and every line of
metrics.jsonl must be the reference's (tests/support/run_comparison.h); and the next start must go on from the newest of them.
optimizer.zero1 and checkpoint.asynchronous are drawn anew for each start: they may not change a bit.

--seed gives the same ranks, kinds of kill and waiting times again; the machine decides what they hit.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

import figures
import processes
from moments import Moments, phase_of, phase_of_start
from run_folder import RunFolder

SOURCE = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
ENDS_WITHIN = 10.0  # seconds from a kill to the end of its job
GIVE_UP = 60.0
REQUEUED = {1, 71, 72, 75} | set(range(128, 160))  # exit codes that a restart loop goes on from
KINDS = ("start", "anywhere", "evaluation", "load", "anywhere")  # of kills outside a save, over and over


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=os.path.abspath, default=os.path.join(SOURCE, "build"), help="build folder")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kills_per_run", type=int, default=5, help="after these a run is left alone to its end")
    parser.add_argument("--mean_seconds", type=float, help="mean time between kills; kills then hit whatever they hit")
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--save_every", type=int, default=7)
    parser.add_argument("--validate_every", type=int, default=20)
    parser.add_argument("--keep", type=int, default=3, help="checkpoints that killed runs keep; 0: all")
    parser.add_argument("--seed", type=int, default=None, help="of the kills; default: from the clock")
    parser.add_argument("--min_goodput", type=float, default=0, help="least share of useful time, else the exit code is 1")
    parser.add_argument("--json", help="file for all figures")
    return parser.parse_args()


class Campaign:
    """The reference run, the killed runs, and what was seen."""

    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        self.program = os.path.join(arguments.build, "hypermoe")
        self.random = random.Random(arguments.seed)
        self.reference = RunFolder(os.path.join(folder, "reference"))
        self.kinds = self.plan_kinds()
        self.rows, self.wrong, self.starts = [], [], 0
        self.job, self.log = None, ""  # of the latest start
        self.runs = self.compared_lines = 0
        self.clean_seconds = self.start_seconds = self.step_seconds = 0.0  # of the reference run
        self.killed_seconds = 0.0  # of all starts of all killed runs
        self.usage = []  # of the reference run: (step, KiB of the largest rank, open files of all)

    def plan_kinds(self):
        kills = self.arguments.kills
        if self.arguments.mean_seconds:
            return ["exponential"] * kills
        saves = max(1, int(0.4 * kills + 0.5))
        kinds = ["save"] * saves + [KINDS[i % len(KINDS)] for i in range(kills - saves)]
        self.random.shuffle(kinds)
        return kinds

    # Starting ------------------------------------------------------------------------------------------------------------

    def prepare(self):
        with open(os.path.join(SOURCE, "configs/data/tiny_shakespeare/input.txt")) as text:
            excerpt = text.read(figures.TEXT_BYTES)
        with open(os.path.join(self.folder, "text.txt"), "w") as text:
            text.write(excerpt)
        subprocess.run([self.program, "prepare", "--input", "text.txt", "--tokenizer", "byte", "--output", "text"],
                       cwd=self.folder, check=True, capture_output=True)

    def start(self, run, settings):
        self.starts += 1
        self.log = os.path.join(self.folder, f"start_{self.starts:04d}.log")
        a = self.arguments
        command = [self.program, "pretrain", "--config", os.path.join(SOURCE, "tests/soak/small.textproto"),
                   "--run_dir", run.path]
        for setting in [f"train.steps={a.steps}", f"checkpoint.every={a.save_every}",
                        f"train.validation_every={a.validate_every}"] + settings:
            command += ["--set", setting]
        run.begin_job()
        self.job = processes.Job(SOURCE, a.ranks, command, self.folder, self.log)
        return self.job

    def train_reference(self):
        """Measures as well: how long starting and a step take, memory and open files."""
        job = self.start(self.reference, [])
        first_line = None
        while not job.ended():
            step = self.reference.step()
            if step > 0 and first_line is None:
                first_line = (time.monotonic(), step)
            usage = job.usage()
            if first_line is not None and len(usage) == self.arguments.ranks:
                self.usage.append((step, max(kib for kib, _ in usage), sum(files for _, files in usage)))
            time.sleep(0.002 if first_line is None else 0.05)
        end = time.monotonic()
        self.clean_seconds = end - job.start
        if job.wait(0)[0] != 0 or self.reference.step() != self.arguments.steps:
            raise SystemExit(f"the reference run failed: {self.log}\n{open(self.log).read()}")
        self.start_seconds = first_line[0] - job.start
        self.step_seconds = (end - first_line[0]) / max(1, self.arguments.steps - first_line[1])

    # Killing -------------------------------------------------------------------------------------------------------------

    def kill_once(self, run, number):
        """One start of `run`, killed on the way; true if it was complete instead."""
        kind, rank = self.kinds[0], self.random.randrange(self.arguments.ranks)
        zero1, asynchronous = self.random.choice(["true", "false"]), self.random.choice(["true", "false"])
        moments = Moments(self.random, self.arguments, self.start_seconds, self.step_seconds)
        job = self.start(run, [f"optimizer.zero1={zero1}", f"checkpoint.asynchronous={asynchronous}",
                               f"checkpoint.keep={self.arguments.keep}"])
        if not moments.wait_for(kind, job, run, rank):
            self.finish(job, run)
            return True
        shared_memory, at_start = job.shared_memory(), phase_of_start(job, rank)
        job.kill_rank(rank)
        code, seconds = job.wait(GIVE_UP)
        if code == 0:  # the rank had come to its end
            self.finish(job, run)
            return True
        self.killed_seconds += time.monotonic() - job.start
        phase = phase_of(run, at_start, self.arguments.validate_every)
        wrong = self.judge_end(code, seconds) + job.leftovers(shared_memory, 5) + self.judge_resume(run, complete=False)
        wrong += self.compare(run)
        if run.newest() < run.begins_at:
            wrong.append(f"the checkpoint of step {run.begins_at} is gone")
        self.kinds.pop(0)
        self.report({"kill": len(self.rows) + 1, "run": number, "rank": rank, "planned": kind, "phase": phase,
                     "resumed_from": run.begins_at, "at_step": run.step(), "newest": run.newest(), "zero1": zero1,
                     "asynchronous": asynchronous, "code": code, "ended_after": round(seconds, 2), "wrong": wrong})
        self.plan_more_saves()
        return False

    def plan_more_saves(self):
        """In place of those that were over before the signal came."""
        missing = figures.saves_wanted(self.arguments) - figures.saves(self.rows) - self.kinds.count("save")
        if missing > 0 and len(self.rows) < 3 * self.arguments.kills:
            self.kinds.append("save")

    # Judging -------------------------------------------------------------------------------------------------------------

    def judge_end(self, code, seconds):
        wrong = [] if seconds <= ENDS_WITHIN else [f"the job ended {seconds:.1f} s after the kill"]
        if code not in REQUEUED:
            wrong.append(f"exit code {code}, from which no restart loop goes on")
        return wrong

    def judge_resume(self, run, complete):
        """Whether the latest start went on from the newest checkpoint. One that was killed may not have come to that."""
        with open(self.log, errors="replace") as log:
            found = re.search(r"resuming from \S*step_(\d+)", log.read())
        resumed = int(found[1]) if found else 0
        if resumed == run.begins_at or (found is None and not complete):
            return []
        return [f"resumed from step {resumed}, not {run.begins_at}"]

    def compare(self, run):
        output = subprocess.run([os.path.join(self.arguments.build, "tests/compare_runs"), self.reference.path, run.path],
                                check=True, capture_output=True, text=True).stdout
        result = json.loads(output)
        if result["checkpoints"] != run.checkpoints():
            result["differences"].append(f"compared checkpoints {result['checkpoints']}, there are {run.checkpoints()}")
        self.compared_lines = result["lines"]
        return result["differences"]

    def finish(self, job, run):
        """Judges a job that was left alone, and the complete run."""
        code, _ = job.wait(GIVE_UP + 3 * self.clean_seconds)
        self.killed_seconds += time.monotonic() - job.start
        wrong = [] if code == 0 else [f"exit code {code}, see {self.log}"]
        wrong += self.judge_resume(run, complete=True) + self.compare(run)
        if self.compared_lines != self.reference.lines():
            wrong.append(f"{self.compared_lines} lines of metrics, the reference has {self.reference.lines()}")
        wanted = self.reference.checkpoints()[-self.arguments.keep:]
        if run.checkpoints() != wanted:
            wrong.append(f"checkpoints {run.checkpoints()}, wanted {wanted}")
        if run.temporary():
            wrong.append(f"{run.temporary()} was left in a complete run")
        self.report({"run": run.path, "phase": "complete", "resumed_from": run.begins_at, "at_step": run.step(),
                     "newest": run.newest(), "wrong": wrong})

    def report(self, row):
        if row["phase"] != "complete":
            self.rows.append(row)
            print(f"{'FAIL' if row['wrong'] else 'ok':4} {row['kill']:4} run {row['run']:3}  rank {row['rank']}  "
                  f"{row['planned']:>11} hit {row['phase']:10} from {row['resumed_from']:6} to {row['at_step']:6} "
                  f"newest {row['newest']:6}  zero1 {row['zero1']:5} async {row['asynchronous']:5}  "
                  f"exit {row['code']} after {row['ended_after']:5.2f} s", flush=True)
        else:
            print(f"{'FAIL' if row['wrong'] else 'ok':4}      run complete: from {row['resumed_from']} to {row['at_step']}",
                  flush=True)
        for sentence in row["wrong"][:20]:
            print(f"       {sentence}", flush=True)
        self.wrong += row["wrong"]

    # The whole -----------------------------------------------------------------------------------------------------------

    def execute(self):
        """Everything; the figures."""
        self.prepare()
        self.train_reference()
        self.check_comparison()
        while self.kinds:
            self.one_run(self.runs + 1)
        found = figures.collect(self)
        self.wrong += figures.judge(found, self.arguments)
        return found

    def end_job(self):
        """Nothing is left running, however this ends."""
        if self.job is not None:
            self.job.leftovers(set(), 0)

    def one_run(self, number):
        run = RunFolder(os.path.join(self.folder, f"run_{number}"))
        kills, complete = 0, False
        while not complete and self.kinds and (self.arguments.mean_seconds or kills < self.arguments.kills_per_run):
            complete = self.kill_once(run, number)
            kills += not complete
        if not complete:
            self.finish(self.start(run, [f"checkpoint.keep={self.arguments.keep}"]), run)
        self.runs += 1
        if not self.wrong:
            shutil.rmtree(run.path)

    def check_comparison(self):
        """A comparison that finds nothing in other runs would prove nothing (tensors: omitted_state_test.cc)."""
        lines = open(os.path.join(self.reference.path, "metrics.jsonl")).read().splitlines(keepends=True)
        loss = json.loads(lines[4])["loss"]
        changed = lines[4].replace(f'"loss":{loss!r}', f'"loss":{loss + loss * 2.0**-52!r}', 1)
        for name, wanted, content in (("same", 0, lines), ("bit", 1, lines[:4] + [changed] + lines[5:]),
                                      ("missing", 1, lines[:4] + lines[5:])):
            spoilt = RunFolder(os.path.join(self.folder, name))
            os.makedirs(spoilt.path)
            with open(os.path.join(spoilt.path, "metrics.jsonl"), "w") as out:
                out.writelines(content)
            if min(1, len(self.compare(spoilt))) != wanted:
                raise SystemExit(f"the comparison misjudges lines of which this was made: {name}")


def main():
    arguments = parse_arguments()
    if arguments.seed is None:
        arguments.seed = int(time.time())
    print(f"seed {arguments.seed}", flush=True)
    folder = tempfile.mkdtemp(prefix="hypermoe_soak_")
    processes.check_leftovers_are_seen(SOURCE, folder)
    campaign = Campaign(arguments, folder)
    try:
        found = campaign.execute()
    finally:
        campaign.end_job()
    for name, value in found.items():
        print(f"{name:28} {value}")
    for sentence in campaign.wrong:
        print(f"FAIL  {sentence}")
    if arguments.json:
        with open(arguments.json, "w") as out:
            json.dump({"figures": found, "kills": campaign.rows, "wrong": campaign.wrong}, out, indent=1)
    if campaign.wrong:
        print(f"all files are in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
