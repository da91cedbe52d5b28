"""Runs a job of one or more ranks and judges how it ended."""

import os
import re
import signal
import subprocess
import threading
import time

MARK = "hypermoe: error:"
KILL_AFTER = 60.0  # seconds
# Of libraries, launchers and our own bugs: no user should meet these.
NOISE = re.compile(r"terminate called|what\(\):|MPI_ABORT|mpirun (detected|has exited)|Exception raised from|frame #\d|"
                   r"\*\*\*|Segmentation|Traceback")


class Run:
    """A job that has ended: exit code, stderr and times."""

    def __init__(self, command, folder, environment, kill_after=KILL_AFTER):
        self.error_at = None
        self.stderr = ""
        self.lines = []  # of stderr, with the seconds since the start
        self.start = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
                                   start_new_session=True)
        readers = [threading.Thread(target=self._read_stderr, args=(process.stderr,)),
                   threading.Thread(target=self._read_stdout, args=(process.stdout,))]
        for reader in readers:
            reader.start()
        try:
            self.code = process.wait(kill_after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            self.code = "hung"
            process.wait()
        self.seconds = time.monotonic() - self.start
        for reader in readers:
            reader.join()

    def _read_stderr(self, pipe):
        for line in pipe:
            self.lines.append((time.monotonic() - self.start, line.rstrip("\n")))
            if self.error_at is None and MARK in line:
                self.error_at = time.monotonic() - self.start
            self.stderr += line

    def _read_stdout(self, pipe):
        self.stdout = pipe.read()


def start(source, ranks, command, folder, variables=None, kill_after=KILL_AFTER):
    """Runs `command` in `folder` to its end: by itself on 1 rank, by launch/mpirun on more."""
    environment = dict(os.environ, **(variables or {}))
    # Set beforehand, so that launch/mpirun has nothing to say about it.
    environment.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    launcher = [] if ranks == 1 else [os.path.join(source, "launch/mpirun"), "-np", str(ranks)]
    return Run(launcher + command, folder, environment, kill_after)


def judge(run, code, patterns):
    """What is wrong with the end of a job that should fail, times apart: a list of sentences."""
    wrong = []
    if run.code != code:
        wrong.append(f"exit code {run.code}, wanted {code}")
    errors = [line for line in run.stderr.splitlines() if MARK in line]
    if len(errors) != 1:
        wrong.append(f"{len(errors)} error lines, wanted one")
    for pattern in patterns:
        if not any(re.search(pattern, line) for line in errors):
            wrong.append(f"no error line matches /{pattern}/")
    if NOISE.search(run.stderr):
        wrong.append(f"noise in stderr: {NOISE.search(run.stderr).group()}")
    return wrong
