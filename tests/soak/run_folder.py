"""A run folder as it grows: lines of metrics.jsonl, checkpoints, and temporary folders of saves."""

import json
import os
import re


class RunFolder:
    """What a run has written so far. May not exist yet."""

    LEFT = "left_by_a_kill"  # a file that marks temporary folders of jobs that are gone

    def __init__(self, path):
        self.path = path
        self.metrics = os.path.join(path, "metrics.jsonl")
        self.begins_at, self._old_metrics = 0, None

    def _names(self):
        try:
            return os.listdir(os.path.join(self.path, "checkpoints"))
        except OSError:
            return []

    def checkpoints(self):
        """Steps of the complete checkpoints, ascending."""
        return sorted(int(name[5:]) for name in self._names() if re.fullmatch(r"step_\d+", name))

    def newest(self):
        """The step that a resume must go on from; 0: the beginning."""
        try:
            with open(os.path.join(self.path, "checkpoints", "latest")) as latest:
                return int(latest.read().strip()[5:])
        except OSError:
            return max(self.checkpoints(), default=0)

    def temporary(self):
        return [name for name in self._names() if name.endswith(".tmp")]

    def begin_job(self):
        """Call before each start: tells what the job writes from what was there."""
        self.begins_at, self._old_metrics = self.newest(), self._metrics_file()
        for name in self.temporary():
            with open(os.path.join(self.path, "checkpoints", name, self.LEFT), "w"):
                pass

    def _metrics_file(self):
        """Names the file itself: a job that starts or resumes replaces it."""
        try:
            return os.stat(self.metrics).st_ino
        except OSError:
            return None

    def saving(self):
        """Whether the job is writing a checkpoint, or was when it was killed."""
        folder, newest = os.path.join(self.path, "checkpoints"), self.newest()
        # An older step: a checkpoint that is being removed.
        steps = [(name, re.match(r"step_(\d+)", name)) for name in self.temporary()]
        return any(step and int(step[1]) > newest and not os.path.exists(os.path.join(folder, name, self.LEFT))
                   for name, step in steps)

    def last_line(self):
        """The last whole line of metrics.jsonl; {} if there is none."""
        try:
            with open(self.metrics, "rb") as file:
                file.seek(max(0, os.path.getsize(self.metrics) - 65536))
                lines = file.read().split(b"\n")
        except OSError:
            return {}
        return json.loads(lines[-2]) if len(lines) > 1 else {}

    def step(self):
        """The last step that the job has trained; where it began if it has not come to that."""
        if self._metrics_file() == self._old_metrics:
            return self.begins_at
        return max(self.begins_at, self.last_line().get("step", 0))

    def lines(self):
        with open(self.metrics, "rb") as file:
            return file.read().count(b"\n")
