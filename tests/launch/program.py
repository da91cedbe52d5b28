"""The program as tests of a model's whole life use it: one command after another in a folder."""

import json
import os

import job


class Program:
    def __init__(self, build, source, folder):
        self.program, self.source, self.folder = os.path.join(build, "hypermoe"), source, folder

    def __call__(self, ranks, *arguments):
        """The last line of stdout, as JSON where it is."""
        run = job.start(self.source, ranks, [self.program, *arguments], self.folder)
        if run.code != 0:
            raise RuntimeError(f"{' '.join(arguments)}: exit code {run.code}: {run.stderr}")
        last = (run.stdout.splitlines() or [""])[-1]
        return json.loads(last) if last.startswith("{") else last

    def records(self, run, kind):
        """The lines of a run's metrics.jsonl that are of a kind."""
        with open(os.path.join(self.folder, run, "metrics.jsonl"), encoding="utf-8") as lines:
            return [record for record in map(json.loads, lines) if record["kind"] == kind]

    def losses(self, run):
        return [record["loss"] for record in self.records(run, "train")]
