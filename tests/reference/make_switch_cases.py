#!/usr/bin/env python3
"""Makes tests/data/switch_cases: small Switch Transformers with random weights, and what Hugging Face computes for them.

  python tests/reference/make_switch_cases.py OUTPUT_DIR

Needs PyTorch and transformers 4.57. The cases cover what tests/data/switch_moe and switch_hyper leave out. Seeds are
searched so that no choice of experts or tokens, and no ReLU of a HyperExpert, is near the point where the rounding of float32
could turn it.
"""

import json
import math
import os
import sys

import torch

import tensor_files
from switch_reference import SwitchReference, load_library

BASE = {"model_type": "switch_transformers", "vocab_size": 13, "d_model": 8, "d_kv": 3, "d_ff": 6, "num_layers": 2,
        "num_decoder_layers": 2, "num_heads": 2, "num_experts": 4, "num_sparse_encoder_layers": 1,
        "num_sparse_decoder_layers": 1, "expert_capacity": 2, "decoder_start_token_id": 0, "pad_token_id": 0,
        "eos_token_id": 1, "router_z_loss_coef": 0.003, "router_aux_loss_coef": 0.02, "dense_act_fn": "gelu_new"}
DIMS = {"expert_embedding_dim": 3, "mlp_hidden_dim": 4, "selection_embedding_dim": 5, "layer_embedding_dim": 2,
        "hidden_dim": 5, "bottleneck_dim": 3}
DECODINGS = {"tokens.greedy": {"num_beams": 1}, "tokens.greedy_nocache": {"num_beams": 1, "use_cache": False},
             "tokens.beam3_lp1": {"num_beams": 3, "length_penalty": 1.0},
             "tokens.beam3_lp2": {"num_beams": 3, "length_penalty": 2.0, "no_repeat_ngram_size": 2, "min_length": 4}}
SMALLEST_MARGIN, SMALLEST_RELU = 2e-3, 1e-5

# Beside the configuration: the dtype of the file, whether tokens are decoded.
CASES = {
    "bias_silu": {"config": {"router_bias": True, "dense_act_fn": "silu", "pad_token_id": 2, "decoder_start_token_id": 5,
                             "eos_token_id": 7, "num_layers": 3, "num_sparse_encoder_layers": 0}, "decode": True},
    "untied_gelu": {"config": {"tie_word_embeddings": False, "dense_act_fn": "gelu", "layer_norm_epsilon": 1e-3,
                               "relative_attention_num_buckets": 6, "relative_attention_max_distance": 5},
                    "dtype": torch.bfloat16, "decode": True},
    "every_block": {"config": {"num_layers": 1, "num_decoder_layers": 3, "num_sparse_decoder_layers": 3, "expert_capacity": 1,
                               "router_ignore_padding_tokens": True, "router_dtype": "bfloat16"}},
    "hyper_stack_bias": {"config": {"num_decoder_layers": 3, "router_bias": True, "num_sparse_decoder_layers": 2},
                         "hyper": {"agg": "sum", "gen_bias": True, "share": "stack", "emb_scope": "stack",
                                   "sel_mlp_scope": "model"}},
    "hyper_layer": {"config": {}, "hyper": {"share": "layer", "emb_scope": "model", "sel_mlp_scope": "stack", "lin_bias": False,
                                            "k_act": "none", "k_norm": "layernorm", "scale": "learned"}},
    "hyper_skip": {"config": {"expert_capacity": 1}, "hyper": {"condition": "selected", "scale": "gate", "on_dropped": "skip"}},
    "hyper_soft": {"config": {}, "hyper": {"z": "one_minus_prob", "agg": "sum"}},
}


def value_of(name, shape, random):
    values = torch.randn(shape, generator=random, dtype=torch.float64)
    if "norm.weight" in name:
        return 1 + 0.2 * values
    if any(part in name for part in ("shared", "embed", "lm_head", "classifier.weight", "relative")):
        return 0.8 * values
    return 0.3 * values if ".q." in name or len(shape) == 1 else values / math.sqrt(shape[-1])


def inputs_of(keys, random):
    """Rows of 7 and 5, the second and third with pads and ignored labels."""
    ids = torch.randint(3, keys["vocab_size"], (3, 7), generator=random)
    labels = torch.randint(3, keys["vocab_size"], (3, 5), generator=random)
    mask = torch.ones_like(ids)
    for row, pads, ignored in ((1, 2, 1), (2, 4, 3)):
        ids[row, 7 - pads:] = keys["pad_token_id"]
        mask[row, 7 - pads:] = 0
        labels[row, 5 - ignored:] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def decode(model, keys, inputs, settings):
    with torch.no_grad():
        tokens = model.model.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], **settings)
    # Beam search pads with the end where the pad is 0.
    for row in tokens:
        ends = (row[1:] == keys["eos_token_id"]).nonzero()
        if len(ends) > 0:
            row[ends[0, 0] + 2:] = keys["pad_token_id"]
    return tokens


def golden(model, keys, names, inputs):
    out = model.model(**inputs, output_router_logits=True, use_cache=False)
    losses = {"ce": torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), inputs["labels"].flatten()),
              "router_z": keys["router_z_loss_coef"] * (out.encoder_z_loss + out.decoder_z_loss),
              "switch_balance": keys["router_aux_loss_coef"] * (out.encoder_aux_loss + out.decoder_aux_loss),
              "total": out.loss}
    tensors = {**inputs, "logits": out.logits}
    tensors.update({f"loss.{name}": torch.as_tensor(loss, dtype=torch.float64).reshape(1) for name, loss in losses.items()})
    margin = math.inf
    for layer, (chosen, kept, logits) in model.routing.items():
        tensors[f"routing.{layer}.experts"] = chosen.unsqueeze(-1)
        tensors[f"routing.{layer}.kept"] = kept.unsqueeze(-1).to(torch.uint8)
        best = logits.softmax(-1).topk(2, -1).values
        margin = min(margin, (best[..., 0] - best[..., 1]).min().item())
    out.loss.backward()
    tensors.update({"grad." + name: gradient for name, gradient in model.gradients(names).items()})
    return {name: value.detach().clone() for name, value in tensors.items()}, margin


def make_case(library, case, seed):
    """Configuration, weights, golden tensors and metadata; None if something is too near to turning."""
    config = {**BASE, **case["config"], **({"hypermoe": {**DIMS, **case["hyper"]}} if "hyper" in case else {})}
    random = torch.Generator().manual_seed(seed)
    model = SwitchReference(library, config)
    weights = {name: value_of(name, shape, random).to(case.get("dtype", torch.float32))
               for name, shape in sorted(model.shapes().items())}
    model.take(weights)
    inputs = inputs_of(config, random)
    tensors, margin = golden(model, config, list(weights), inputs)
    relu = model.hyper.margins.relu if model.hyper is not None else math.inf
    dropped = any((tensors[name] == 0).any() for name in tensors if name.endswith(".kept"))
    if margin < SMALLEST_MARGIN or relu < SMALLEST_RELU or not dropped:
        return None
    metadata = {"dtype": "float64", "seed": str(seed)}
    for name, settings in DECODINGS.items() if case.get("decode", False) else []:
        settings = {"do_sample": False, "max_length": 9, **settings,
                    **{key: config[key] for key in ("pad_token_id", "eos_token_id", "decoder_start_token_id")}}
        tensors[name] = decode(model, config, inputs, settings)
        metadata[name] = json.dumps(settings)
    return config, weights, tensors, metadata


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    library = load_library()
    for name, case in CASES.items():
        made = next(filter(None, (make_case(library, case, seed) for seed in range(1000))))
        config, weights, tensors, metadata = made
        folder = os.path.join(sys.argv[1], name)
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
            json.dump(config, file, indent=1)
            file.write("\n")
        tensor_files.write(os.path.join(folder, "model.safetensors"), weights, {"format": "pt"})
        tensor_files.write(os.path.join(folder, "golden.safetensors"), tensors, metadata)
        print(f"{name}: seed {metadata['seed']}, {len(tensors)} entries", flush=True)


if __name__ == "__main__":
    main()
