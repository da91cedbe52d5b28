#!/usr/bin/env python3
"""Makes tests/data/golden_cases: small model folders with random weights, and what the reference computes for them.

  python tests/reference/make_golden_cases.py OUTPUT_DIR          write all cases
  python tests/reference/make_golden_cases.py OUTPUT_DIR --random COUNT
                                                                  instead, cases with options drawn at random
  python tests/reference/make_golden_cases.py --check FOLDER...   compare the reference with folders that have golden files

Needs PyTorch only. The cases cover every option of the format in few files: each option that a case names is tried at its
other values too, and must then give other numbers. Seeds are searched so that no choice of experts or tokens, and no ReLU,
is near the point where the rounding of float32 could turn it, and so that float32 changes nothing by more than 1e-5.
"""

import argparse
import copy
import json
import os
import random as random_module
import sys
import warnings

warnings.filterwarnings("ignore", message="Failed to initialize NumPy")

import torch  # noqa: E402

import tensor_files  # noqa: E402
from golden_values import differences, golden  # noqa: E402
from gpt2_reference import Model  # noqa: E402
from random_weights import random_tensors  # noqa: E402

BASE = {"model_type": "gpt2", "vocab_size": 11, "n_embd": 6, "n_head": 2, "n_layer": 2, "n_inner": 5, "n_positions": 8,
        "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5}
DIMS = {"expert_embedding_dim": 3, "mlp_hidden_dim": 5, "selection_embedding_dim": 4, "layer_embedding_dim": 2,
        "hidden_dim": 5, "bottleneck_dim": 3}
GREEDY = {"do_sample": False, "max_new_tokens": 4, "num_beams": 1, "prompt_length": 3}
SMALLEST_MARGINS = {"probability": 1e-3, "relu": 1e-5, "token": 1e-3}


def moe(experts, k, layers=(0, 1), router="switch", capacity=("none", 64), losses=(0.01, 0.0, 0.0, 0.001), **more):
    names = ("switch_balance", "importance_cv2", "load_cv2", "router_z")
    return {"num_experts": experts, "top_k": k, "sparse_layers": list(layers), "router": router,
            "capacity": dict(zip(("mode", "value"), capacity)), "losses": dict(zip(names, losses)), **more}


def sparse(moe_block, hyper_block=None, **more):
    config = {**BASE, "model_type": "hypermoe_gpt2", "moe": moe_block, **more}
    if hyper_block is not None:
        config["hypermoe"] = {**DIMS, **hyper_block}
    return config


# Beside the configuration: batch and decoding, the dtype and names of the file, its shards; dropped, all_dropped: some
# choices, some token's every choice find no room; zeros: parts of the names of gradients that are zero and no others;
# anything: none of these is looked at.
CASES = {
    "dense_relu": {
        "config": {**{key: value for key, value in BASE.items() if key != "n_inner"}, "n_layer": 1,
                   "activation_function": "relu", "layer_norm_epsilon": 1e-3},
        "dtype": torch.float16, "prefix": "transformer.", "decoding": GREEDY},
    "moe_noisy_k2": {
        "config": sparse(moe(4, 2, (1,), "noisy_topk", ("factor_per_group", 0.8), (0.02, 0.03, 0.05, 0.07),
                             renormalize=True), activation_function="gelu"),
        "decoding": GREEDY, "dropped": True},
    "moe_share_k1": {
        "config": sparse(moe(4, 1, capacity=("fixed_per_row", 2), losses=(0.0, 0.1, 0.2, 0.0)), {"kind": "moe_share"},
                         activation_function="relu"),
        "dtype": torch.bfloat16, "decoding": GREEDY, "dropped": True},
    "adapter_k3": {
        "config": sparse(moe(4, 3, (0,), capacity=("factor_per_group", 0.1), losses=(0.0, 0.3, 0.1, 0.01)),
                         {"kind": "adapter"}),
        "dropped": True},
    "selected_k2": {
        "config": sparse(moe(4, 2, capacity=("fixed_per_row", 2)),
                         {"condition": "selected", "emb_scope": "stack", "sel_mlp_scope": "model", "share": "layer",
                          "lin_bias": False, "gen_bias": True, "k_norm": "layernorm", "scale": "gate",
                          "on_dropped": "skip"}),
        "decoding": GREEDY, "dropped": True, "all_dropped": True},
    "selected_sum_k2": {
        "config": sparse(moe(5, 2, router="noisy_topk", losses=(0.01, 0.01, 0.01, 0.01), renormalize=True),
                         {"condition": "selected", "agg": "sum", "sel_mlp_scope": "stack", "k_act": "none"}),
        "shards": 2},
    "soft_k2": {
        "config": sparse(moe(4, 2), {"z": "one_minus_prob", "emb_scope": "model", "sel_mlp_scope": "stack",
                                     "share": "stack", "scale": "learned", "k_act": "none"}),
        "decoding": GREEDY},
    "soft_sum_k1": {
        "config": sparse(moe(4, 1, capacity=("fixed_per_row", 2), router="noisy_topk"),
                         {"z": "one_minus_prob", "agg": "sum", "gen_bias": True, "lin_bias": False,
                          "on_dropped": "skip"}),
        "dropped": True, "all_dropped": True},
    "hidden_k2": {
        "config": sparse(moe(4, 2, renormalize=True),
                         {"condition": "hidden", "k_norm": "layernorm", "gen_bias": True, "scale": "learned"}),
        "decoding": GREEDY},
    "all_experts_k3": {
        "config": sparse(moe(3, 3, losses=(0.1, 0.1, 0.1, 0.1)), {"lin_bias": False, "share": "layer"}),
        "zeros": ("expert_embedding", "selection_mlp.0.0.weight", "selection_mlp.1.0.weight")},
    "unselected_k3": {
        "config": sparse(moe(5, 3, (1,), capacity=("factor_per_group", 1.0)),
                         {"agg": "sum", "gen_bias": True, "k_act": "none", "k_norm": "layernorm", "scale": "gate",
                          "emb_scope": "model"}),
        "decoding": GREEDY, "dropped": True},
    "one_expert_no_labels": {
        "config": sparse(moe(1, 1, (1,), losses=(0.1, 0.2, 0.3, 0.4)), {}), "rows": 1, "labels": False,
        "zeros": ("h.1.mlp.experts", "hypermoe", "ln_f")},
    "baked_k1": {
        "config": sparse(moe(4, 1, capacity=("fixed_per_row", 2)),
                         {"gen_bias": True, "scale": "gate", "on_dropped": "skip", "baked": True}),
        "decoding": GREEDY, "dropped": True, "all_dropped": True},
}

# Values to try in place of an option's, to see that it makes a difference.
OTHER_VALUES = {
    "agg": ["mean", "sum"], "k_act": ["relu", "none"], "scale": ["none", "gate", "learned"],
    "on_dropped": ["apply", "skip"], "z": ["binary", "one_minus_prob"], "condition": ["unselected", "selected", "hidden"],
    "emb_scope": ["layer", "stack", "model"], "sel_mlp_scope": ["layer", "stack", "model"],
    "share": ["layer", "stack", "model"], "gen_bias": [False, True], "k_norm": ["none", "layernorm"],
    "kind": ["hyper", "moe_share", "adapter", "moe"]}


def random_case(number):
    """A case with every option drawn anew; the same for the same number."""
    draw = random_module.Random(number)
    experts = draw.choice([1, 2, 3, 4, 5])
    k = draw.randint(1, min(3, experts))
    capacity = draw.choice([("none", 64), ("fixed_per_row", draw.randint(1, 3)),
                            ("factor_per_group", draw.choice([0.1, 0.5, 0.9, 1.25]))])
    layers = draw.choice([(0,), (1,), (0, 1)])
    block = moe(experts, k, layers, draw.choice(["switch", "noisy_topk"]), capacity,
                [draw.choice([0.0, 0.1]) for _ in range(4)], renormalize=draw.choice([False, True]))
    hyper = {option: draw.choice(values) for option, values in OTHER_VALUES.items()}
    hyper["lin_bias"] = draw.choice([False, True])
    hyper["kind"] = draw.choice(["hyper"] * 5 + ["moe_share", "adapter", "moe"])
    if hyper["condition"] == "selected" or experts == 1:
        hyper["z"] = "binary"  # the other is refused, or 0 / 0
    config = sparse(block, hyper, activation_function=draw.choice(["gelu_new", "gelu", "relu"]))
    return {"name": f"random_{number}", "config": config, "rows": draw.choice([1, 2, 3, 5]),
            "labels": draw.random() > 0.1, "decoding": draw.choice([None, GREEDY]), "anything": True,
            "dtype": draw.choice([torch.float32, torch.float16, torch.bfloat16]), "shards": draw.choice([1, 3])}


def random_batch(case, config, random):
    """The last row ends in padding; labels are not the ids, some are ignored, and the first of a row counts nowhere."""
    rows, length = case.get("rows", 3), 6
    ids = torch.randint(config["vocab_size"], (rows, length), generator=random)
    labels = torch.randint(config["vocab_size"], (rows, length), generator=random)
    labels[0, 3] = -100
    labels[-1, 4:] = -100
    ids[-1, 4:] = 0
    if not case.get("labels", True):
        labels[:] = -100
        labels[:, 0] = 1
    return ids, labels


def far_from_ties(model):
    return all(getattr(model.margins, name) > least for name, least in SMALLEST_MARGINS.items())


def well_conditioned(case, stored, tensors):
    """Whether float32 gives the same to far below the tolerance of 1e-4."""
    model = Model(case["config"], stored, torch.float32)
    rounded = golden(model, tensors["input_ids"], tensors["labels"])[0]
    return not differences(rounded, {name: tensors[name] for name in rounded}, tolerance=1e-5)


def shows_what_it_should(case, tensors):
    if case.get("anything", False):
        return True
    kept = [value for name, value in tensors.items() if name.endswith(".kept")]
    dropped = any((value == 0).any() for value in kept)
    all_dropped = any((value == 0).all(-1).any() for value in kept)
    expected = case.get("dropped", False), case.get("all_dropped", False)
    zeros = ("w_noise", *case.get("zeros", ()))
    gradients = {name: value for name, value in tensors.items() if name.startswith("grad.")}
    right = all((value == 0).all() == any(part in name for part in zeros) for name, value in gradients.items())
    return dropped == expected[0] and all_dropped >= expected[1] and right


def make_case(case):
    for seed in range(10000):
        random = torch.Generator().manual_seed(seed)
        stored = random_tensors(case["config"], case.get("dtype", torch.float32), random)
        ids, labels = random_batch(case, case["config"], random)
        model = Model(case["config"], stored)
        tensors, metadata = golden(model, ids, labels, case.get("decoding"))
        if (far_from_ties(model) and shows_what_it_should(case, tensors) and
                well_conditioned(case, stored, tensors)):
            metadata["seed"] = str(seed)
            return stored, tensors, metadata
    raise RuntimeError(f"{case['name']}: no seed will do")


def check_options(case, stored, tensors):
    """Every option of the case, at each other value, must give other numbers (or need other tensors)."""
    for option, values in OTHER_VALUES.items():
        if option not in case["config"].get("hypermoe", {}):
            continue
        for value in values:
            config = copy.deepcopy(case["config"])
            if config["hypermoe"][option] == value:
                continue
            config["hypermoe"][option] = value
            try:
                changed = golden(Model(config, stored), tensors["input_ids"], tensors["labels"])[0]
            except (KeyError, RuntimeError):
                continue  # it needs other tensors
            if not differences(changed, {name: value for name, value in tensors.items() if name in changed}):
                raise RuntimeError(f"{case['name']}: {option} = {value} gives the same numbers")


def write_weights(folder, case, stored):
    prefix, count = case.get("prefix", ""), case.get("shards", 1)
    names = sorted(stored)
    if count == 1:
        tensor_files.write(os.path.join(folder, "model.safetensors"), {prefix + name: stored[name] for name in names},
                           {"format": "pt"})
        return
    weight_map = {}
    for i in range(count):
        shard = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
        mine = names[i::count]
        tensor_files.write(os.path.join(folder, shard), {name: stored[name] for name in mine}, {"format": "pt"})
        weight_map.update({name: shard for name in mine})
    total = sum(value.numel() * value.element_size() for value in stored.values())
    with open(os.path.join(folder, "model.safetensors.index.json"), "w", encoding="utf-8") as file:
        json.dump({"metadata": {"total_size": total}, "weight_map": weight_map}, file)


def write_case(folder, case):
    stored, tensors, metadata = make_case(case)
    if not case.get("anything", False):
        check_options(case, stored, tensors)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(case["config"], file, indent=1)
        file.write("\n")
    write_weights(folder, case, stored)
    prefix = case.get("prefix", "")
    renamed = {name.replace("grad.", "grad." + prefix, 1): value for name, value in tensors.items()}
    tensor_files.write(os.path.join(folder, "golden.safetensors"), renamed, metadata)
    size = sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder))
    print(f"{case['name']}: seed {metadata['seed']}, {len(tensors)} entries, {size / 1000:.0f} kB")


def check_folder(folder):
    model = Model.load(folder)
    expected, metadata = tensor_files.read(os.path.join(folder, "golden.safetensors"))
    expected = {name.replace("grad.transformer.", "grad."): value for name, value in expected.items()}
    decoding = json.loads(metadata["tokens.greedy"]) if "tokens.greedy" in metadata else None
    actual, _ = golden(model, expected["input_ids"], expected["labels"], decoding)
    wrong = differences(actual, expected)
    print(f"{folder}: {len(expected)} entries, " + (f"differ: {wrong}" if wrong else "all equal to 1e-9"))
    return not wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?")
    parser.add_argument("--random", type=int, metavar="COUNT")
    parser.add_argument("--check", nargs="+", metavar="FOLDER")
    arguments = parser.parse_args()
    if (arguments.output is None) == (arguments.check is None):
        parser.error("give either OUTPUT_DIR or --check FOLDER...")
    if arguments.check:
        return 0 if all([check_folder(folder) for folder in arguments.check]) else 1
    cases = [{**case, "name": name} for name, case in CASES.items()]
    if arguments.random is not None:
        cases = [random_case(number) for number in range(arguments.random)]
    for case in cases:
        write_case(os.path.join(arguments.output, case["name"]), case)
    return 0


if __name__ == "__main__":
    sys.exit(main())
