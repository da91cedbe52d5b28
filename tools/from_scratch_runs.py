"""The runs of tools/from_scratch: each trains one kind with one seed and evaluates it; as many at once as there are cores."""

import json
import os
import re
import subprocess
import sys
import time

from from_scratch_results import training_summary
from script_support import DEFECT, IO, USAGE, Failure, read, write

SHOW_EVERY = 30  # seconds


def say(text):
    print(f"from_scratch: {text}", file=sys.stderr, flush=True)


def last_line(text):
    return (text.strip().splitlines() or ["no message"])[-1]


def output_of(command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failure(exit_code(done.returncode), f"{' '.join(command)} failed: {last_line(done.stderr)}")
    return done.stdout


def exit_code(returncode):
    """Of a child's, which is negative after a signal."""
    return returncode if returncode > 0 else 128 - returncode


def program_identity(program):
    return re.search(r"^program +hash (\w+)", output_of([program, "env"]), re.MULTILINE).group(1)


class Run:
    """One kind with one seed, in the run folder OUT/KIND-SEED, which then holds result.json too."""

    def __init__(self, program, config, folder, kind, seed, overrides, test, facts):
        self.program, self.config, self.folder, self.kind, self.seed = program, config, folder, kind, seed
        self.overrides, self.test, self.facts = overrides + [f"runtime.seed={seed}"], test, facts
        self.result_path, self.log_path = (os.path.join(folder, name) for name in ("result.json", "log.txt"))
        self.process, self.core, self.evaluating = None, None, False

    def settings(self):
        """What a result was made with; comments of the configuration do not count."""
        lines = read(self.config).decode().splitlines()
        config = " ".join(word for line in lines for word in line.split("#")[0].split())
        return {"config": config, "set": self.overrides, **self.facts}

    def result(self):
        """The finished result, or None."""
        if not os.path.exists(self.result_path):
            return None
        result = json.loads(read(self.result_path))
        if result["settings"] != self.settings():
            raise Failure(USAGE, f"{self.result_path} was made with other settings: give another --out, or the same settings")
        return result

    def start(self, core):
        self.core = core
        os.makedirs(self.folder, exist_ok=True)
        assignments = [word for override in self.overrides for word in ("--set", override)]
        self.launch(["pretrain", "--config", self.config, "--run_dir", self.folder] + assignments)

    def launch(self, arguments):
        """On the run's core alone. The lock of OUT, which children inherit, lasts as long as any of them."""
        with open(self.log_path, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [self.program] + arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if self.evaluating else log,
                stderr=log, text=True, close_fds=False, preexec_fn=lambda: os.sched_setaffinity(0, {self.core}))

    def ended(self):
        """Whether all of it is done; after the training it starts the evaluation."""
        code = self.process.poll()
        if code is None:
            return False
        if code != 0:
            message = last_line(read(self.log_path).decode(errors="replace"))
            raise Failure(exit_code(code), f"{self.kind}, seed {self.seed}, ended with exit code {exit_code(code)}: {message}")
        if not self.evaluating:
            self.evaluating = True
            self.launch(["evaluate", "--checkpoint", self.folder, "--data", self.test])
            return False
        return True

    def finish(self, identity):
        """Keeps the result of an ended run; `identity` is the program's."""
        test = json.loads(last_line(self.process.stdout.read()))
        log = read(self.log_path).decode(errors="replace")
        parameters, active = re.findall(r"(\d+) parameters \((\d+) active", log)[-1]
        result = {"kind": self.kind, "seed": self.seed, "parameters": int(parameters), "active": int(active),
                  **training_summary(self.metrics()), "test_nats": test["loss"] * test["tokens"],
                  "program": identity, "settings": self.settings()}
        write(self.result_path, json.dumps(result, indent=1) + "\n")

    def metrics(self):
        path = os.path.join(self.folder, "metrics.jsonl")
        if not os.path.exists(path):
            return []
        # Its last line may be half written.
        return [json.loads(line) for line in read(path).decode().split("\n")[:-1]]

    def progress(self):
        """(step, loss) of the newest training line; (0, None) before the first."""
        return next(((line["step"], line["loss"]) for line in reversed(self.metrics()) if line["kind"] == "train"), (0, None))


class Schedule:
    """Works through the runs that have no result yet, in their order, one on each core at a time."""

    def __init__(self, runs, steps):
        self.runs, self.steps = runs, steps
        self.waiting = [run for run in runs if run.result() is None]
        self.running = []
        self.free_cores = sorted(os.sched_getaffinity(0), reverse=True)
        self.began = time.monotonic()
        self.shown = self.began
        self.left_at_first = self.steps_left()

    def work(self):
        identity = program_identity(self.runs[0].program) if self.waiting else None
        try:
            while self.waiting or self.running:
                while self.waiting and self.free_cores:
                    self.running.append(self.waiting.pop(0))
                    self.running[-1].start(self.free_cores.pop())
                for run in [run for run in self.running if run.ended()]:
                    self.running.remove(run)
                    run.finish(identity)
                    self.free_cores.append(run.core)
                    say(f"{run.kind}, seed {run.seed}: {run.result_path}")
                if time.monotonic() - self.shown >= SHOW_EVERY:
                    self.show()
                time.sleep(0.1)
        finally:
            # Left where their newest checkpoints are: the same command goes on from there.
            for run in self.running:
                run.process.kill()
                run.process.wait()

    def steps_left(self):
        return sum(self.steps - run.progress()[0] for run in self.waiting + self.running)

    def show(self):
        self.shown = time.monotonic()
        states = []
        for run in self.running:
            step, loss = run.progress()
            state = "evaluation" if run.evaluating else "starting" if loss is None else f"loss {loss:.3f}"
            states.append(f"{run.kind}-{run.seed} {step}/{self.steps} {state}")
        left = self.steps_left()
        done = self.left_at_first - left
        minutes = f"{left / done * (self.shown - self.began) / 60:.0f} min" if done > 0 else "-"
        finished = len(self.runs) - len(self.waiting) - len(self.running)
        say(f"{finished} of {len(self.runs)} done; {'; '.join(states)}; eta {minutes}")
