#!/usr/bin/env python3
"""The memory that pretrain says a rank took, against what it computed beforehand, for several ways to train.

Both are on one of pretrain's last lines. They must agree within a factor, recomputation and ZeRO-1 must lower what was taken,
and models are so large that the part which is the same for all does not hide a wrong figure.

    tests/launch/memory.py BUILD_FOLDER SOURCE_FOLDER [NAME...]
"""

import os
import re
import shutil
import sys
import tempfile

import job

FACTOR = 1.3  # between computed and taken
SWITCH_FACTOR = 1.2  # the same of family switch_transformers
SAVED = 0.85  # what a way to save memory must leave at most
UNITS = {"KiB": 2.0**-10, "MiB": 1.0, "GiB": 2.0**10}
LINE = re.compile(r"^memory +([\d.]+) ([KMG]iB) at most on a rank for training, computed ([\d.]+) ([KMG]iB)$", re.MULTILINE)

CONFIG = """
model { vocab_size: 257 sequence_length: 256 num_layers: 6 hidden_size: 64 num_heads: 2 ffn_size: 256 num_experts: 4 }
hyper { bottleneck_dim: 16 hidden_dim: 16 }
data { train { prefix: "text" } validation_fraction: 0.05 }
train { steps: 3 batch_size: 32 }
checkpoint { every: 0 }
optimizer { warmup_steps: 1 }
runtime { threads: 1 }
"""
# Little text and much model, for what is kept of parameters.
LARGE = ["model.num_experts=24", "model.ffn_size=768", "train.batch_size=2"]
# An encoder-decoder on the same bytes.
SWITCH = ["model.family=switch_transformers", "model.vocab_size=358", "model.pad_id=357", "model.decoder_start_id=357",
          "model.end_id=256", "model.num_decoder_layers=6", "model.activation=relu"]
# Name, ranks, settings.
VARIANTS = [
    ("dense", 1, ["model.kind=dense"]),
    ("dropout", 1, ["model.kind=dense", "model.dropout=0.1", "train.batch_size=10"]),
    ("bfloat16", 1, ["model.kind=moe", "runtime.dtype=bfloat16"]),
    ("hyper", 1, ["model.kind=hyper"]),
    ("recompute", 1, ["model.kind=hyper", "train.recompute=blocks"]),
    ("top2", 1, ["model.kind=hyper", "model.top_k=2", "model.router=noisy_topk"]),
    ("bilinear", 1, ["model.kind=hyper", "hyper.condition=hidden"]),
    ("owner", 2, ["model.kind=hyper", "hyper.execution=owner", "mesh.expert_parallel=2"]),
    ("replicated", 2, ["model.kind=moe", "mesh.expert_parallel=1"] + LARGE),
    ("zero1", 2, ["model.kind=moe", "mesh.expert_parallel=1", "optimizer.zero1=true"] + LARGE),
    ("snapshot", 1, ["model.kind=moe", "checkpoint.every=1"] + LARGE),
    ("waiting", 1, ["model.kind=moe", "checkpoint.every=1", "checkpoint.asynchronous=false"] + LARGE),
    ("switch", 1, SWITCH + ["model.kind=moe"]),
    ("switch_dropout", 1, SWITCH + ["model.kind=hyper", "model.dropout=0.1", "train.batch_size=24"]),
    ("switch_bfloat16", 1, SWITCH + ["model.kind=moe", "runtime.dtype=bfloat16"]),
    ("switch_recompute", 1, SWITCH + ["model.kind=moe", "train.recompute=blocks"]),
    ("snapshot_zero1", 2, ["model.kind=moe", "mesh.expert_parallel=1", "optimizer.zero1=true", "checkpoint.every=1"] + LARGE),
]
# A way to save memory, and what it is compared with.
SAVINGS = [("recompute", "hyper"), ("zero1", "replicated"), ("waiting", "snapshot"), ("switch_recompute", "switch")]


def parse(stdout):
    """MiB taken and computed, or None."""
    found = LINE.search(stdout)
    if found is None:
        return None
    return float(found[1]) * UNITS[found[2]], float(found[3]) * UNITS[found[4]]


def judge(figures, factor=FACTOR):
    """What is wrong with the figures of a run: a list of sentences."""
    if figures is None:
        return ["no line says what memory was taken and computed"]
    taken, computed = figures
    if not 1 / factor <= computed / taken <= factor:
        return [f"computed / taken is {computed / taken:.2f}, wanted {1 / factor:.2f} to {factor:.2f}"]
    return []


def judge_saving(saving, plain):
    """What is wrong with MiB taken by a way to save memory, given those without it."""
    if saving <= SAVED * plain:
        return []
    return [f"took {saving:.0f} MiB, without it {plain:.0f} MiB: wanted at most {SAVED:.0%}"]


def check_judge():
    """A judge that finds nothing wrong anywhere would prove nothing."""
    def line(taken, computed):
        return f"validation  loss 1\nmemory      {taken} at most on a rank for training, computed {computed}\nmetrics     x\n"
    good = [("400 MiB", "400 MiB"), ("400 MiB", "512 MiB"), ("400 MiB", "310 MiB"), ("1.00 GiB", "900 MiB")]
    bad = [("400 MiB", "530 MiB"), ("400 MiB", "300 MiB"), ("1.00 GiB", "700 MiB"), ("400 MiB", "0 KiB"),
           ("400 MiB", "400 KiB"), ("1 stone", "1 stone")]
    for figures in good:
        if judge(parse(line(*figures))):
            sys.exit(f"the judge found fault with {figures}")
    for figures in bad:
        if not judge(parse(line(*figures))):
            sys.exit(f"the judge missed that {figures} do not agree")
    if not judge(parse("no such line")) or not judge_saving(90, 100) or judge_saving(80, 100):
        sys.exit("the judge misjudged a missing line or a saving")


class Bench:
    """The program and a folder with a short token file."""

    def __init__(self, build, source, folder):
        self.build, self.source, self.folder = build, source, folder

    def run(self, arguments, ranks):
        run = job.start(self.source, ranks, [os.path.join(self.build, "hypermoe")] + arguments, self.folder)
        if run.code != 0:
            sys.exit(f"{arguments} ended with {run.code}:\n{run.stderr}")
        return run

    def prepare(self):
        with open(os.path.join(self.source, "configs/data/tiny_shakespeare/input.txt")) as text:
            excerpt = text.read(60000)
        with open(os.path.join(self.folder, "text.txt"), "w") as text:
            text.write(excerpt)
        with open(os.path.join(self.folder, "run.textproto"), "w") as config:
            config.write(CONFIG)
        self.run(["prepare", "--input", "text.txt", "--tokenizer", "byte", "--output", "text"], 1)

    def try_variant(self, name, ranks, settings):
        """MiB taken, or None if the run is not as it must be. Prints the outcome."""
        sets = [argument for setting in settings for argument in ("--set", setting)]
        run = self.run(["pretrain", "--config", "run.textproto", "--run_dir", name] + sets, ranks)
        shutil.rmtree(os.path.join(self.folder, name))
        figures = parse(run.stdout)
        wrong = judge(figures, SWITCH_FACTOR if name.startswith("switch") else FACTOR)
        taken, computed = figures or (0, 0)
        print(f"{'FAIL' if wrong else 'ok':4}  np {ranks}  taken {taken:5.0f} MiB  computed {computed:5.0f} MiB  "
              f"{run.seconds:4.1f} s  {name}")
        for sentence in wrong:
            print(f"      {' '.join(settings)}\n      {sentence}")
        sys.stdout.flush()
        return None if wrong else taken


def main():
    build, source, wanted = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3:]
    check_judge()
    folder = tempfile.mkdtemp(prefix="hypermoe_memory_")
    try:
        bench = Bench(build, source, folder)
        bench.prepare()
        taken = {variant[0]: bench.try_variant(*variant) for variant in VARIANTS if not wanted or variant[0] in wanted}
    finally:
        shutil.rmtree(folder)
    failed = not taken or None in taken.values()
    for saving, plain in SAVINGS:
        if taken.get(saving) is None or taken.get(plain) is None:
            continue
        wrong = judge_saving(taken[saving], taken[plain])
        print(f"{'FAIL' if wrong else 'ok':4}  {saving} takes {taken[saving] / taken[plain]:.0%} of {plain}")
        for sentence in wrong:
            print(f"      {sentence}")
        failed = failed or bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
