#!/usr/bin/env python3
"""Disks that are full, or cannot be written any more, under the real program: file systems of 4 MB of their own.

A run must keep the checkpoints it has, leave nothing half written, say what the matter is and end with exit code 74; with
checkpoint.on_save_error `continue` it must go on, and save again when there is room. Needs a mount namespace (unshare -rm).

    tests/launch/disk_full.py BUILD_FOLDER SOURCE_FOLDER [NAME...]
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import job

IO, STOPPED = 74, 75  # ExitCode of runtime/status.h
SKIPPED = 77
INSIDE = "HYPERMOE_DISK_FULL_INSIDE"
WAIT = 60.0  # seconds for what a run does at once
DISK_KIB = 4096
# Its checkpoints take about 1.1 MB: three of them fit.
CONFIG = """
model { kind: moe vocab_size: 257 sequence_length: 16 num_layers: 1 hidden_size: 32 num_heads: 2 ffn_size: 128 num_experts: 8 }
data { train { prefix: "text" } }
train { steps: 100000 batch_size: 2 validation_every: 0 }
optimizer { warmup_steps: 1 }
checkpoint { every: 5 }
runtime { threads: 1 }
"""


def enter_namespace():
    """Starts this script again where it may mount; ends with SKIPPED where that is not allowed."""
    if os.environ.get(INSIDE):
        return
    if subprocess.run(["unshare", "-rm", "true"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        print("SKIPPED: this machine does not allow mount namespaces (unshare -rm)")
        sys.exit(SKIPPED)
    os.environ[INSIDE] = "1"
    os.execvp("unshare", ["unshare", "-rm", sys.executable, "-B"] + sys.argv)


def call(*command):
    subprocess.run(command, check=True)


class Watched:
    """A run that goes on while the test looks at what it says."""

    def __init__(self, bench, ranks, run_dir, settings):
        self.lines = []
        self.changed = threading.Condition()
        environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        launcher = [] if ranks == 1 else [os.path.join(bench.source, "launch/mpirun"), "-np", str(ranks)]
        self.process = subprocess.Popen(launcher + bench.pretrain(run_dir, settings), cwd=bench.folder, env=environment,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                        start_new_session=True)
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            with self.changed:
                self.lines.append(line.rstrip())
                self.changed.notify()
        with self.changed:
            self.changed.notify()

    def wait_for(self, pattern, after=0):
        """The number of lines up to the first one after `after` lines that matches."""
        end = time.monotonic() + WAIT
        with self.changed:
            while True:
                for number in range(after, len(self.lines)):
                    if re.search(pattern, self.lines[number]):
                        return number + 1
                if not self.changed.wait(end - time.monotonic()):
                    raise AssertionError(f"no line matches /{pattern}/ within {WAIT:.0f} s:\n" + self.stderr())

    def stderr(self):
        return "\n".join(self.lines)

    def end(self):
        """The exit code, once it has ended by itself."""
        try:
            return self.process.wait(WAIT)
        finally:
            self.stop()

    def stop(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.reader.join()


class Bench:
    """The program, and a folder with a short token file."""

    def __init__(self, build, source, folder):
        self.program, self.source, self.folder = os.path.join(build, "hypermoe"), source, folder
        self.mounts = []

    def pretrain(self, run_dir, settings):
        return [self.program, "pretrain", "--config", "run.textproto", "--run_dir", run_dir] + [
            argument for setting in settings for argument in ("--set", setting)]

    def run(self, arguments, ranks=1):
        return job.start(self.source, ranks, [self.program] + arguments, self.folder)

    def prepare(self):
        with open(os.path.join(self.folder, "text.txt"), "w") as text:
            text.write("The quick brown fox jumps over the lazy dog.\n" * 100)
        with open(os.path.join(self.folder, "run.textproto"), "w") as config:
            config.write(CONFIG)
        prepared = self.run(["prepare", "--input", "text.txt", "--tokenizer", "byte", "--output", "text"])
        assert prepared.code == 0, prepared.stderr

    def disk(self, *path, kib=DISK_KIB):
        """A file system of its own."""
        path = os.path.join(self.folder, *path)
        os.makedirs(path)
        call("mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", path)
        self.mounts.append(path)
        return path

    def checkpoints(self, run_dir):
        return sorted(os.listdir(os.path.join(run_dir, "checkpoints")))

    def must_load(self, run_dir, checkpoint):
        evaluated = self.run(["evaluate", "--checkpoint", os.path.join(run_dir, "checkpoints", checkpoint)])
        assert evaluated.code == 0, evaluated.stderr


def judge_left(names):
    """What is wrong with what a failed save has left in checkpoints/: a list of sentences."""
    wrong = [f"left behind: {name}" for name in names if name != "latest" and not re.fullmatch(r"step_\d{8}", name)]
    if not any(re.fullmatch(r"step_\d{8}", name) for name in names):
        wrong.append("no checkpoint is left")
    return wrong


def check_judge():
    """A judge that finds nothing wrong anywhere would prove nothing."""
    if judge_left(["latest", "step_00000005"]) or len(judge_left(["step_00000005.tmp"])) != 2:
        sys.exit("the judge misjudged what a save has left")


def full_disk_ends_the_run(bench, ranks, settings):
    """The disk fills up with checkpoints until one does not fit."""
    run_dir = os.path.dirname(bench.disk(f"full_{ranks}", "checkpoints"))
    run = bench.run(bench.pretrain(run_dir, settings)[1:], ranks)
    wrong = job.judge(run, IO, [r"the checkpoint of step \d+ could not be saved", r"No space left on device"])
    assert not wrong, f"{wrong}\n{run.stderr}"
    assert re.search(r"warning: .* are free, the \d+ checkpoints of this run take", run.stderr), run.stderr
    names = bench.checkpoints(run_dir)
    assert not judge_left(names), names
    newest = max(name for name in names if name.startswith("step_"))
    assert int(newest.removeprefix("step_")) >= 10, names
    bench.must_load(run_dir, newest)
    # The same command goes on once there is room.
    for name in names:
        if name not in (newest, "latest"):
            shutil.rmtree(os.path.join(run_dir, "checkpoints", name))
    resumed = bench.run(bench.pretrain(run_dir, settings)[1:], ranks)
    assert resumed.code == IO, resumed.stderr  # fills it again
    assert f"resuming from {run_dir}/checkpoints/{newest}" in resumed.stderr, resumed.stderr


def goes_on_when_told_to(bench, ranks):
    """Something else fills the disk for a while."""
    disk = bench.disk(f"goes_on_{ranks}", "checkpoints")
    run_dir = os.path.dirname(disk)
    run = Watched(bench, ranks, run_dir, ["checkpoint.keep=1", "checkpoint.on_save_error=continue"])
    try:
        seen = run.wait_for("saved ")
        filler = os.path.join(disk, "filler")
        subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], stderr=subprocess.DEVNULL, check=False)
        seen = run.wait_for(r"warning: the checkpoint of step \d+ could not be saved.*No space left", seen)
        names = bench.checkpoints(run_dir)
        os.remove(filler)
        run.wait_for("saved ", seen)
        assert any(name.startswith("step_") and not name.endswith(".tmp") for name in names), names
        assert run.process.poll() is None, run.stderr()
    finally:
        run.stop()


def unwritable_folder_ends_the_run(bench, ranks):
    """The folder of the checkpoints becomes read-only after the first."""
    run_dir = os.path.join(bench.folder, f"unwritable_{ranks}")
    checkpoints = os.path.join(run_dir, "checkpoints")
    os.makedirs(checkpoints)
    call("mount", "--bind", checkpoints, checkpoints)
    bench.mounts.append(checkpoints)
    run = Watched(bench, ranks, run_dir, ["checkpoint.keep=2"])
    try:
        run.wait_for("saved ")
        # Refused while a file in it is being written.
        end = time.monotonic() + WAIT
        while subprocess.run(["mount", "-o", "remount,bind,ro", checkpoints], stderr=subprocess.DEVNULL,
                             check=False).returncode != 0:
            assert time.monotonic() < end and run.process.poll() is None, run.stderr()
        code = run.end()
    finally:
        run.stop()
    assert code == IO, f"exit code {code}\n{run.stderr()}"
    errors = [line for line in run.lines if job.MARK in line]
    assert len(errors) == 1 and "Read-only file system" in errors[0] and "checkpoint of step" in errors[0], run.stderr()
    # What was being written, nobody can remove now.
    names = [name for name in bench.checkpoints(run_dir) if not name.endswith(".tmp")]
    assert not judge_left(names), names
    bench.must_load(run_dir, max(name for name in names if name.startswith("step_")))


def too_small_a_disk_is_refused(bench, ranks):
    """Not even one checkpoint fits: said before the first step, and nothing is written."""
    disk = bench.disk(f"small_{ranks}", kib=512)
    run = bench.run(bench.pretrain(os.path.join(disk, "run"), [])[1:], ranks)
    wrong = job.judge(run, IO, [r"too little space", r"\d+ KiB are free, a checkpoint takes [\d.]+ [KM]iB"])
    assert not wrong, f"{wrong}\n{run.stderr}"
    assert run.seconds < 10, f"{run.seconds:.1f} s"
    assert os.listdir(disk) == [], os.listdir(disk)


def main():
    enter_namespace()
    build, source, wanted = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3:]
    check_judge()
    folder = tempfile.mkdtemp(prefix="hypermoe_disk_full_")
    bench = Bench(build, source, folder)
    failed = False
    try:
        bench.prepare()
        cases = [(full_disk_ends_the_run, 2, []), (full_disk_ends_the_run, 1, ["checkpoint.asynchronous=false"]),
                 (goes_on_when_told_to, 2), (unwritable_folder_ends_the_run, 1), (unwritable_folder_ends_the_run, 2),
                 (too_small_a_disk_is_refused, 2)]
        for case, *arguments in cases:
            if wanted and case.__name__ not in wanted:
                continue
            start = time.monotonic()
            try:
                case(bench, *arguments)
                outcome = "ok"
            except AssertionError as error:
                outcome, failed = f"FAIL\n{error}", True
            print(f"{time.monotonic() - start:5.1f} s  {case.__name__} {arguments}  {outcome}", flush=True)
    finally:
        for mount in bench.mounts:
            call("umount", "-l", mount)
        shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
