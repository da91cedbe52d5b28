#!/usr/bin/env python3
"""A Switch Transformer's life as a user has it: a text, 200 steps of span corruption, a folder and back, generation.

    tests/launch/encoder_decoder.py BUILD_FOLDER SOURCE_FOLDER
"""

import json
import os
import shutil
import sys
import tempfile

from program import Program

ADAFACTOR = ["--set", "optimizer.kind=adafactor", "--set", "optimizer.learning_rate=0.01"]


def check_training(hypermoe, run, ranks, kind, changes):
    config = os.path.join(hypermoe.source, "configs", f"switch_tiny_{kind}.textproto")
    hypermoe(ranks, "pretrain", "--config", config, "--run_dir", run, "--set", "data.train=text",
             "--set", "train.validation_every=0", "--set", "checkpoint.every=0", *changes)
    course = hypermoe.losses(run)
    first, last = course[0], sum(course[-10:]) / 10
    # Uniform guesses over the vocabulary cost log(358) = 5.88.
    return [] if first > 5.5 and last < 3.8 else [f"{run}: loss from {first} to {last} in {len(course)} steps"]


def check_folder(hypermoe, folder, ranks):
    wrong = []
    hypermoe(ranks, "export", "--checkpoint", "hyper", "--output", "model")
    hypermoe(ranks, "import", "--from", "model", "--run_dir", "imported")
    hypermoe(1, "export", "--checkpoint", "imported", "--output", "again")
    for name in ("config.json", "model.safetensors"):
        contents = [open(os.path.join(folder, one, name), "rb").read() for one in ("model", "again")]
        if contents[0] != contents[1]:
            wrong.append(f"{name} changes by import and export")
    return wrong


def check_generation(hypermoe, folder):
    texts = ["The quick brown <extra_id_0> over the lazy dog.", "", "To train <extra_id_0> at scale."]
    with open(os.path.join(folder, "texts.txt"), "w", encoding="utf-8") as file:
        file.write("".join(text + "\n" for text in texts))
    outputs = []
    for ranks in (1, 2):
        output = f"answers_{ranks}.jsonl"
        hypermoe(ranks, "generate", "--checkpoint", "hyper", "--input", "texts.txt", "--output", output, "--beams", "3",
                 "--max_length", "12", "--no_repeat_ngram", "2", "--set", "runtime.dtype=float64")
        outputs.append([json.loads(line) for line in open(os.path.join(folder, output), encoding="utf-8")])
    wrong = [] if [line["input"] for line in outputs[0]] == texts else [f"inputs: {outputs[0]}"]
    if [line["token_ids"] for line in outputs[0]] != [line["token_ids"] for line in outputs[1]]:
        wrong.append(f"one rank and two write differently: {outputs}")
    if not all(1 <= len(line["token_ids"]) <= 11 for line in outputs[0]):
        wrong.append(f"lengths: {outputs[0]}")
    return wrong


def main():
    build, source = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    folder = tempfile.mkdtemp(prefix="hypermoe_encoder_decoder_")
    hypermoe = Program(build, source, folder)
    try:
        hypermoe(1, "prepare", "--input", os.path.join(source, "README.md"), "--tokenizer", "byte", "--no_end_of_text",
                 "--output", "text")
        wrong = check_training(hypermoe, "hyper", 2, "hyper", [])
        wrong += check_training(hypermoe, "moe", 1, "moe", ADAFACTOR)
        wrong += check_folder(hypermoe, folder, 2)
        wrong += check_generation(hypermoe, folder)
    finally:
        shutil.rmtree(folder)
    print("\n".join(wrong) or "all as it must be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
