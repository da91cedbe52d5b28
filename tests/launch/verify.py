#!/usr/bin/env python3
"""hypermoe verify as a user meets it: exit code, table, last line and message, at 1 and 2 ranks.

    tests/launch/verify.py BUILD_FOLDER SOURCE_FOLDER
"""

import json
import os
import shutil
import sys
import tempfile

import job
from bad_input_cases import BAD_DATA, IO, USAGE, flip_byte, truncate

MODEL = "tests/data/golden_cases/selected_k2"
FLOAT64 = ["--set", "runtime.dtype=float64"]


def spoil(folder, model):
    """Copies of the model with one thing wrong: names of the folders."""
    for name in ("other_golden", "other_weight", "cut_golden", "no_golden"):
        shutil.copytree(model, os.path.join(folder, name))
    golden = os.path.join(folder, "other_golden", "golden.safetensors")
    # The widest elements stand first; bit 0 of the seventh byte of a double is worth 1/16 of it or more.
    with open(golden, "rb") as file:
        data_begin = 8 + int.from_bytes(file.read(8), "little")
    flip_byte(golden, data_begin + 6)
    weights = os.path.join(folder, "other_weight", "model.safetensors")
    flip_byte(weights, os.path.getsize(weights) - 2)
    truncate(os.path.join(folder, "cut_golden", "golden.safetensors"), 1)
    os.remove(os.path.join(folder, "no_golden", "golden.safetensors"))


def check_success(run, ranks):
    wrong = [] if run.code == 0 else [f"exit code {run.code}: {run.stderr}"]
    lines = run.stdout.splitlines()
    for group in ("logits", "losses", "gradients: experts", "gradients: hypernetwork", "routing", "tokens"):
        if not any(line.startswith(group) and " ok " in line for line in lines):
            wrong.append(f"no line says that {group} is ok")
    last = json.loads(lines[-1]) if lines else {}
    if last.get("ok") is not True or last.get("failed") != 0 or not 0 < last["worst"]["relative"] < 1e-9:
        wrong.append(f"last line: {last}")
    return wrong


def main():
    build, source = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    model = os.path.join(source, MODEL)
    failures = [
        ("a golden value differs", ["other_golden", *FLOAT64], BAD_DATA, ["1 of 92 entries", "other_golden", "grad"]),
        ("a weight differs", ["other_weight", *FLOAT64], BAD_DATA, ["entries of other_weight", "the worst: "]),
        ("a tolerance that float32 does not keep", [model, "--tolerance", "1e-12"], BAD_DATA, ["tolerance of 1e-12"]),
        ("a golden file cut off", ["cut_golden"], BAD_DATA, [r"cut_golden/golden\.safetensors"]),
        ("no golden file", ["no_golden"], IO, [r"no_golden/golden\.safetensors"]),
        ("a golden file of another model", [model, "--golden", os.path.join(source, "tests/data/gpt2_dense/golden.safetensors")],
         BAD_DATA, [r"gpt2_dense/golden\.safetensors", "positions|vocabulary"]),
        ("a tolerance beyond reason", [model, "--tolerance", "7"], USAGE, ["--tolerance", "0 to 1"]),
    ]
    folder = tempfile.mkdtemp(prefix="hypermoe_verify_")
    wrong = []
    try:
        spoil(folder, model)

        def start(arguments, ranks):
            return job.start(source, ranks, [os.path.join(build, "hypermoe"), "verify", "--model", *arguments], folder)

        for ranks in (1, 2):
            wrong += [f"np {ranks}: {text}" for text in check_success(start([model, *FLOAT64], ranks), ranks)]
            for name, arguments, code, patterns in failures:
                run = start(arguments, ranks)
                wrong += [f"np {ranks}, {name}: {text}: {run.stderr}" for text in job.judge(run, code, patterns)]
                if code == BAD_DATA and "entries" in run.stderr and json.loads(run.stdout.splitlines()[-1])["ok"]:
                    wrong.append(f"np {ranks}, {name}: the last line says ok")
    finally:
        shutil.rmtree(folder)
    print("\n".join(wrong) or "all as it must be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
