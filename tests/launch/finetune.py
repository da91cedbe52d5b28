#!/usr/bin/env python3
"""A Switch Transformer's way to a task as a user goes it: span corruption on bytes, 8 experts become 16, fine-tuning to SST-2 and
SQuAD at 2 ranks, evaluation, a model folder and back.

    tests/launch/finetune.py BUILD_FOLDER SOURCE_FOLDER
"""

import json
import os
import random
import shutil
import sys
import tempfile

from program import Program

TINY = ["--set", "model.num_experts=8", "--set", "data.train=text", "--set", "train.steps=40",
        "--set", "train.validation_every=0", "--set", "checkpoint.every=0"]
GOOD, BAD = ["a joy", "bright", "warm", "well made"], ["a bore", "dull", "cold", "badly made"]
THINGS, NAMES = ["film", "cast", "music", "plot"], ["Ann", "Bo", "Cy", "Di"]


def write_sst2(folder, choose):
    os.mkdir(folder)
    for name, count in [("train", 200), ("dev", 21)]:
        with open(os.path.join(folder, name + ".tsv"), "w", encoding="utf-8") as file:
            file.write("sentence\tlabel\n")
            for _ in range(count):
                label = choose.randrange(2)
                words = choose.choice(GOOD if label else BAD)
                file.write(f"the {choose.choice(THINGS)} is {words}\t{label}\n")


def write_squad(folder, choose):
    os.mkdir(folder)
    for name, count in [("train", 200), ("dev", 21)]:
        articles = []
        for number in range(count):
            who, what = choose.choice(NAMES), choose.choice(THINGS)
            question = {"id": f"{name}{number}", "question": f"Who likes the {what}?",
                        "answers": [{"text": who, "answer_start": 0}]}
            articles.append({"title": what, "paragraphs": [{"context": f"{who} likes it.", "qas": [question]}]})
        with open(os.path.join(folder, f"{name}-v1.1.json"), "w", encoding="utf-8") as file:
            json.dump({"version": "1.1", "data": articles}, file)


def finetune(hypermoe, task, *changes):
    config = os.path.join(hypermoe.source, "configs", "finetune.textproto")
    hypermoe(2, "finetune", "--config", config, "--task", task, "--data", f"data_{task}", "--init_from", "grown", "--run_dir", task,
             "--set", "optimizer.learning_rate=3e-3", "--set", "decoding.max_length=10", *changes)


def check_squad(hypermoe):
    finetune(hypermoe, "squad", "--set", "train.epochs=0", "--set", "train.steps=50", "--set", "train.validation_every=25",
             "--set", "data.source_length=60")
    course = hypermoe.losses("squad")
    first, last = course[0], sum(course[-5:]) / 5
    # Four names of two or three bytes, and an end.
    return [] if len(course) == 50 and first > 2 and last < 0.8 * first else [f"squad: loss from {first} to {last}"]


def check_sst2(hypermoe, folder):
    finetune(hypermoe, "sst2", "--set", "train.epochs=4", "--set", "train.validation_every=10", "--set", "train.patience=9")
    validations = hypermoe.records("sst2", "validation")
    best = max(validations, key=lambda record: record["accuracy"])
    evaluate = ["evaluate", "--task", "sst2", "--data", "data_sst2", "--checkpoint"]
    wrong = [] if validations[-1]["step"] == 50 else [f"200 examples, 4 epochs of 16 a step: {validations}"]
    results = [hypermoe(ranks, *evaluate, "sst2", "--output", f"answers_{ranks}.jsonl", "--set", f"decoding.batch_size={size}")
               for ranks, size in [(1, 5), (2, 32)]]
    for result in results:
        if (result["accuracy"], result["step"], result["examples"]) != (best["accuracy"], best["step"], 21):
            wrong.append(f"the best validation was {best}, its checkpoint gives {result}")
    answers = [[json.loads(line) for line in open(os.path.join(folder, f"answers_{ranks}.jsonl"), encoding="utf-8")] for ranks in (1, 2)]
    if answers[0] != answers[1] or len(answers[0]) != 21:
        wrong.append(f"one rank and two answer differently: {answers}")
    hypermoe(2, "export", "--checkpoint", "sst2", "--output", "folder")
    hypermoe(2, "import", "--from", "folder", "--run_dir", "imported")
    for model in ("folder", "imported"):
        again = hypermoe(2, *evaluate, model, "--set", "decoding.max_length=10")
        if (again["accuracy"], again["invalid"]) != (results[0]["accuracy"], results[0]["invalid"]):
            wrong.append(f"{model} gives {again}, the run {results[0]}")
    return wrong


def main():
    build, source = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    folder = tempfile.mkdtemp(prefix="hypermoe_finetune_")
    hypermoe = Program(build, source, folder)
    choose = random.Random(1)
    try:
        write_sst2(os.path.join(folder, "data_sst2"), choose)
        write_squad(os.path.join(folder, "data_squad"), choose)
        hypermoe(1, "prepare", "--input", os.path.join(source, "README.md"), "--tokenizer", "byte", "--no_end_of_text",
                 "--output", "text")
        hypermoe(2, "pretrain", "--config", os.path.join(source, "configs", "switch_tiny_hyper.textproto"), "--run_dir", "pretrained",
                 *TINY)
        hypermoe(2, "grow", "--from", "pretrained", "--experts", "16", "--output", "grown")
        wrong = check_squad(hypermoe) + check_sst2(hypermoe, folder)
    finally:
        shutil.rmtree(folder)
    print("\n".join(wrong) or "all as it must be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
