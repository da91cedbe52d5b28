"""The tensors of a model folder of the GPT-2 family: names and shapes, and random values."""

import torch

from gpt2_reference import HYPER_DEFAULTS


def dense_shapes(config):
    d, inner = config["n_embd"], config.get("n_inner", 4 * config["n_embd"])
    shapes = {"wte.weight": [config["vocab_size"], d], "wpe.weight": [config["n_positions"], d],
              "ln_f.weight": [d], "ln_f.bias": [d]}
    for layer in range(config["n_layer"]):
        h = f"h.{layer}."
        for norm in ("ln_1", "ln_2"):
            shapes.update({f"{h}{norm}.weight": [d], f"{h}{norm}.bias": [d]})
        shapes.update({h + "attn.c_attn.weight": [d, 3 * d], h + "attn.c_attn.bias": [3 * d],
                       h + "attn.c_proj.weight": [d, d], h + "attn.c_proj.bias": [d]})
        mlps = [h + "mlp"]
        if layer in config.get("moe", {"sparse_layers": []})["sparse_layers"]:
            mlps = [f"{h}mlp.experts.expert_{e}" for e in range(config["moe"]["num_experts"])]
            shapes[h + "mlp.router.w_gate"] = [d, config["moe"]["num_experts"]]
            if config["moe"]["router"] == "noisy_topk":
                shapes[h + "mlp.router.w_noise"] = [d, config["moe"]["num_experts"]]
            kind = config.get("hypermoe", {}).get("kind", "hyper")
            if kind == "moe_share":
                mlps.append(h + "mlp.shared_expert")
            if kind == "adapter":
                b = config["hypermoe"]["bottleneck_dim"]
                shapes.update(linear_shapes(h + "mlp.adapter.down", b, d))
                shapes.update(linear_shapes(h + "mlp.adapter.up", d, b))
        for mlp in mlps:
            shapes.update({mlp + ".c_fc.weight": [d, inner], mlp + ".c_fc.bias": [inner],
                           mlp + ".c_proj.weight": [inner, d], mlp + ".c_proj.bias": [d]})
    return shapes


def linear_shapes(name, outputs, inputs, bias=True):
    return {name + ".weight": [outputs, inputs], **({name + ".bias": [outputs]} if bias else {})}


def baked_shapes(config, hyper):
    d, b, experts = config["n_embd"], hyper["bottleneck_dim"], config["moe"]["num_experts"]
    shapes = {}
    for layer in config["moe"]["sparse_layers"]:
        baked = f"hypermoe.baked.{layer}."
        shapes.update({baked + "down": [experts, d, b], baked + "up": [experts, b, d]})
        if hyper["gen_bias"]:
            shapes.update({baked + "down_offset": [experts, b], baked + "up_offset": [experts, d]})
    return shapes


def hyper_shapes(config, hyper):
    d, b, q, p = config["n_embd"], hyper["bottleneck_dim"], hyper["hidden_dim"], hyper["selection_embedding_dim"]
    layers = config["moe"]["sparse_layers"]

    def scopes(key):
        encoder_blocks = config.get("encoder_blocks", 0)
        stacks = sorted({"encoder" if layer < encoder_blocks else "decoder" for layer in layers})
        return {"layer": [str(layer) for layer in layers], "stack": stacks, "model": ["model"]}[hyper[key]]

    shapes = {"hypermoe.layer_embedding.weight": [config["n_layer"], hyper["layer_embedding_dim"]]}
    if hyper["condition"] == "hidden":
        p = d
    else:
        for s in scopes("emb_scope"):
            shapes[f"hypermoe.expert_embedding.{s}.weight"] = [config["moe"]["num_experts"],
                                                               hyper["expert_embedding_dim"]]
        for s in scopes("sel_mlp_scope"):
            mlp = f"hypermoe.selection_mlp.{s}."
            shapes.update(linear_shapes(mlp + "0", hyper["mlp_hidden_dim"], hyper["expert_embedding_dim"]))
            shapes.update(linear_shapes(mlp + "2", p, hyper["mlp_hidden_dim"]))
    for s in scopes("share"):
        generator = f"hypermoe.generator.{s}."
        shapes.update(linear_shapes(generator + "project", q, p + hyper["layer_embedding_dim"]))
        shapes.update(linear_shapes(generator + "down", d * b, q, hyper["lin_bias"]))
        shapes.update(linear_shapes(generator + "up", b * d, q, hyper["lin_bias"]))
        if hyper["k_norm"] == "layernorm":
            shapes.update({generator + "norm.weight": [q], generator + "norm.bias": [q]})
        if hyper["gen_bias"]:
            shapes.update(linear_shapes(generator + "down_offset", b, q))
            shapes.update(linear_shapes(generator + "up_offset", d, q))
    if hyper["scale"] == "learned":
        shapes.update({f"hypermoe.scale.{layer}": [1] for layer in layers})
    return shapes


def shapes_of(config):
    shapes = dense_shapes(config)
    if "hypermoe" in config:
        hyper = {**HYPER_DEFAULTS, **config["hypermoe"]}
        if hyper["kind"] == "hyper":
            shapes.update((baked_shapes if hyper.get("baked") else hyper_shapes)(config, hyper))
    return shapes


def random_tensors(config, dtype, random):
    tensors = {}
    for name, shape in sorted(shapes_of(config).items()):
        values = torch.randn(shape, generator=random, dtype=torch.float64)
        norm = name.endswith("weight") and (".ln_" in name or "ln_f" in name or ".norm." in name)
        if norm:
            values = 1 + 0.2 * values
        elif "embedding" in name or "wte" in name or "w_gate" in name:
            values = 0.8 * values
        elif len(shape) > 1:
            values = 0.5 * values
        else:
            values = 0.2 * values + (0.7 if ".scale." in name else 0.0)
        tensors[name] = values.to(dtype)
    return tensors
