#!/usr/bin/env python3
"""hypermoe checkpoint as a user meets it: tables, messages and exit codes; and a resharded run that goes on.

    tests/launch/checkpoint.py BUILD_FOLDER SOURCE_FOLDER
"""

import json
import os
import re
import shutil
import sys
import tempfile

import job
from bad_input_cases import BAD_DATA, flip_byte, train_arguments

STOPPED = 75
STEP = "checkpoints/step_00000002"
ONE_THREAD = ["--set", "runtime.threads=1"]  # several wait long for each other on a machine that is busy


def names(folder):
    return sorted(os.listdir(folder))


class Checks:
    """Runs the program in a folder and collects what is wrong."""

    def __init__(self, build, source, folder):
        self.program, self.source, self.folder, self.wrong = os.path.join(build, "hypermoe"), source, folder, []

    def run(self, arguments, ranks=1, code=0):
        run = job.start(self.source, ranks, [self.program, *arguments], self.folder)
        if run.code != code:
            self.wrong.append(f"{arguments} at {ranks} ranks ended with {run.code}, wanted {code}: {run.stderr}")
        return run

    def expect(self, good, what):
        if not good:
            self.wrong.append(what)

    def matches(self, pattern, text):
        self.expect(re.search(pattern, text, re.MULTILINE), f"/{pattern}/ is not in: {text}")

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def content(self, *parts):
        if not os.path.exists(self.path(*parts)):
            return None
        with open(self.path(*parts), "rb") as file:
            return file.read()


def check_tables(checks):
    for ranks in (1, 2):
        done = checks.run(["checkpoint", "verify", "run"], ranks)
        checks.matches(rf"^run/{STEP}  intact: \d+ tensors, .*, files: 1$", done.stdout)
    done = checks.run(["checkpoint", "list", "run"])
    checks.matches(r"^step_00000001  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d +\d+ +\d+ +1 +1$", done.stdout)
    checks.matches(r"^step_00000002 .* latest$", done.stdout)
    for words in (["checkpoint"], ["checkpoint", "reshard"]):
        done = checks.run([*words, "--help"])
        checks.matches(r"Write it as another number of ranks would have|--expert_parallel", done.stdout)


def check_damage(checks):
    shutil.copytree(checks.path("run"), checks.path("damaged"))
    weights = checks.path("damaged", STEP, "rank_00000.safetensors")
    flip_byte(weights, os.path.getsize(weights) - 1)
    flip_byte(checks.path("damaged/checkpoints/step_00000001/manifest.json"), 100)
    for ranks in (1, 2):
        done = checks.run(["checkpoint", "verify", "damaged"], ranks, BAD_DATA)
        checks.wrong += job.judge(done, BAD_DATA, ["2 of 2 checkpoints are damaged"])
        checks.matches(r"rank_00000\.safetensors' is damaged: bytes \d+ to \d+ of \d+ .*tensor '", done.stdout)
        checks.matches(r"step_00000001/manifest\.json", done.stdout)
    done = checks.run(["checkpoint", "list", "damaged"])
    checks.matches(r"^step_00000001  damaged: .*manifest\.json", done.stdout)


def check_resharding(checks):
    for ranks, output in ((1, "four"), (2, "four_again")):
        done = checks.run(["checkpoint", "reshard", "--checkpoint", "run", "--ranks", "4", "--expert_parallel", "4",
                           "--output", output], ranks)
        checks.matches(rf"^checkpoint  {output}/{STEP}$", done.stdout)
    files = [f"rank_0000{rank}.safetensors" for rank in range(4)]
    checks.expect(names(checks.path("four", STEP)) == ["manifest.json", *files], names(checks.path("four", STEP)))
    for name in files:
        one, two = checks.content("four", STEP, name), checks.content("four_again", STEP, name)
        checks.expect(one is not None and one == two, f"{name} differs by the number of ranks that resharded it")
    checks.run(["checkpoint", "verify", "four"])
    # The same layout goes on: the same bits, as the losses show.
    losses = []
    for run in ("run", "four"):
        checks.run(train_arguments(checks.source, run, ONE_THREAD))
        with open(checks.path(run, "metrics.jsonl")) as file:
            lines = [json.loads(line) for line in file]
        losses.append([line["loss"] for line in lines if line["kind"] == "train" and line["step"] > 2])
    checks.expect(len(losses[0]) == 2 and losses[0] == losses[1], f"losses {losses}")


def main():
    build, source = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    folder = tempfile.mkdtemp(prefix="hypermoe_checkpoint_")
    checks = Checks(build, source, folder)
    try:
        with open(checks.path("good.txt"), "w") as text:
            text.write("The quick brown fox jumps over the lazy dog.\n" * 400)
        checks.run(["prepare", "--input", "good.txt", "--tokenizer", "byte", "--output", "good"])
        stop = [*ONE_THREAD, "--set", "checkpoint.every=1", "--stop_at_step", "2"]
        checks.run(train_arguments(source, "run", stop), code=STOPPED)
        check_tables(checks)
        check_damage(checks)
        check_resharding(checks)
    except OSError as error:  # of a file that an earlier command should have written
        checks.wrong.append(error)
    finally:
        shutil.rmtree(folder)
    print("\n".join(map(str, checks.wrong)) or "all as it must be")
    return 1 if checks.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
