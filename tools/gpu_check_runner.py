"""Runs steps one after the other, each within its limit and all within a budget; reports them as a table and as JSON."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time

SHOW_EVERY = 30  # seconds
LOG_BYTES = 500_000  # of a step's output, its end, in the log
# The first line that matches the first of these that any line matches says why a step failed.
REASONS = [r": Failure$", r"^=+ (Invalid|Error|Race|Uninitialized|Barrier|Program hit)",
           r"hypermoe: error:|: (fatal )?error:|CMake Error", r"FAILED: ", r"terminate called|Segmentation|Aborted|Assertion",
           r"^\[  FAILED  \]"]


def say(text):
    print(f"gpu_check: {text}", file=sys.stderr, flush=True)


def plain_text(output):
    """Without colours: mpirun gives its ranks a terminal, so they write some."""
    return re.sub(r"\x1b\[[0-9;]*[mK]|\r", "", output.decode(errors="replace"))


def last_line(text):
    return (text.strip().splitlines() or [""])[-1].strip()


def first_error(output):
    lines = output.splitlines()
    for reason in REASONS:
        for number, line in enumerate(lines):
            if re.search(reason, line):
                # GoogleTest and CMake say more in the next line.
                more = 2 if line.endswith((": Failure", ":")) else 1
                return " ".join(part.strip() for part in lines[number:number + more])
    return last_line(output)


def processes_of(session):
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                state, _, _, its_session = file.read().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue  # it has just ended
        if int(its_session) == session and state not in "ZX":
            found.append(int(name))
    return found


def end_session(session):
    """Ends all processes of a session. Not a process group: mpirun gives each rank one of its own."""
    for number, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 10.0)):
        end = time.monotonic() + patience
        for process in processes_of(session):
            try:
                os.kill(process, number)
            except ProcessLookupError:
                continue
        while processes_of(session) and time.monotonic() < end:
            time.sleep(0.05)


@dataclasses.dataclass
class Outcome:
    name: str
    result: str  # ok, FAILED or skipped
    seconds: float
    note: str  # the key figure, the first line of an error, or why it was skipped
    command: str = ""
    exit_code: int | None = None


class Runner:
    """Keeps the time, the outcomes and the log. `machine` is what the report says about where it ran."""

    def __init__(self, budget, folder, machine):
        self.start, self.budget, self.machine = time.monotonic(), budget, machine
        self.outcomes = []
        os.makedirs(folder, exist_ok=True)
        self.report_path = os.path.join(folder, "gpu_check.json")
        self.log_path = os.path.join(folder, "gpu_check.log")
        with open(self.log_path, "w", encoding="utf-8"):
            pass
        self.write_report()

    def elapsed(self):
        return time.monotonic() - self.start

    def left(self):
        return self.budget - self.elapsed()

    def run(self, name, command, environment, limit, judge=lambda output: "", figure=lambda output: ""):
        """Runs a command to its end or limit. `judge` says what is wrong with the output of one that ended with 0."""
        say(f"[{self.elapsed():5.0f} s] {name}: at most {limit:.0f} s")
        started = time.monotonic()
        try:
            code, output = self._execute(name, command, environment, limit)
        except OSError as error:
            code, output = 127, f"{command[0]}: {error.strerror}\n"
        seconds = time.monotonic() - started
        if code is None:
            result, note = "FAILED", f"ended after {limit:.0f} s, its limit; last line: {last_line(output) or 'none'}"
        elif code != 0:
            result, note = "FAILED", f"exit code {code}: {first_error(output) or 'no output'}"
        else:
            problem = judge(output)
            result, note = ("FAILED", problem) if problem else ("ok", figure(output))
        with open(self.log_path, "a", encoding="utf-8") as log:
            log.write(f"===== {name}: {result} in {seconds:.1f} s: {' '.join(command)}\n{output[-LOG_BYTES:]}\n")
        self.add(Outcome(name, result, round(seconds, 2), note, " ".join(command), code))
        return result == "ok"

    def _execute(self, name, command, environment, limit):
        """Exit code, None at the limit, and output."""
        output_path = self.log_path + ".part"
        with open(output_path, "w+b") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                       env=environment, start_new_session=True)
            end = time.monotonic() + limit
            try:
                while process.poll() is None and time.monotonic() < end:
                    try:
                        process.wait(min(SHOW_EVERY, max(0.0, end - time.monotonic())))
                    except subprocess.TimeoutExpired:
                        if time.monotonic() < end:
                            say(f"[{self.elapsed():5.0f} s] {name}: {last_line(self._tail(output_path))[:100]}")
                code = process.poll()
            finally:
                end_session(process.pid)  # after a good end too: nothing that is left may disturb the next step
                process.poll()
            output.seek(0)
            text = plain_text(output.read())
        os.remove(output_path)
        return code, text

    @staticmethod
    def _tail(path):
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - 2000))
            return plain_text(file.read())

    def skip(self, name, reason):
        self.add(Outcome(name, "skipped", 0.0, reason))

    def fail(self, name, reason):
        self.add(Outcome(name, "FAILED", 0.0, reason))

    def add(self, outcome):
        self.outcomes.append(outcome)
        say(f"[{self.elapsed():5.0f} s] {outcome.name}: {outcome.result} {outcome.note}".rstrip())
        self.write_report()

    def count(self, result):
        return sum(outcome.result == result for outcome in self.outcomes)

    def write_report(self):
        """After every step, so that what ends this program leaves what was found so far."""
        report = {"ok": self.count("FAILED") == 0, "machine": self.machine, "budget": self.budget,
                  "seconds": round(self.elapsed(), 1), "steps": [dataclasses.asdict(outcome) for outcome in self.outcomes]}
        with open(self.report_path + ".part", "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
            file.write("\n")
        os.replace(self.report_path + ".part", self.report_path)

    def table(self):
        width = max(len(outcome.name) for outcome in self.outcomes)
        lines = [f"{'step':{width}}  {'result':8}  seconds  key figure, first error, or why it was skipped"]
        for outcome in self.outcomes:
            note = outcome.note if len(outcome.note) <= 140 else outcome.note[:137] + "..."
            lines.append(f"{outcome.name:{width}}  {outcome.result:8}  {outcome.seconds:7.1f}  {note}".rstrip())
        lines.append(f"{self.count('ok')} ok, {self.count('FAILED')} failed, {self.count('skipped')} skipped "
                     f"in {self.elapsed():.0f} of {self.budget:.0f} s")
        return "\n".join(lines)
