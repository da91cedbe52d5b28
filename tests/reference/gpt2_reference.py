"""The GPT-2 family in float64, written to be read beside the text of the format, not to be fast.

An implementation of its own, against which the C++ one is checked: every token is routed, every HyperExpert generated and
every expert run on its own, one vector at a time; gradients are autograd's. Semantics: model folders as the README's "Model
folders" describes them; HyperMoE is arXiv:2402.12656, Eq. 5-9.

Vectors are rows; matrices of GPT-2 map [in, out], those of the hypernetwork and the adapter [out, in].
"""

import json
import math
import os

import torch

import tensor_files

HYPER_DEFAULTS = {
    "kind": "hyper", "condition": "unselected", "agg": "mean", "emb_scope": "layer", "sel_mlp_scope": "layer",
    "share": "model", "lin_bias": True, "gen_bias": False, "k_act": "relu", "k_norm": "none", "scale": "none",
    "on_dropped": "apply", "z": "binary", "expert_embedding_dim": 128, "mlp_hidden_dim": 128,
    "selection_embedding_dim": 128, "layer_embedding_dim": 10, "hidden_dim": 128, "bottleneck_dim": 64}
NO_MOE = {"sparse_layers": []}


class Margins:
    """How near the computation came to a point where rounding could change more than the last digits."""

    def __init__(self):
        self.probability = self.relu = self.token = math.inf

    def see_order(self, probs, k):
        values = sorted(probs.tolist(), reverse=True)
        gaps = [a - b for a, b in zip(values[:k], values[1:k + 1])]
        self.probability = min([self.probability, *gaps])

    def see_relu(self, x):
        self.relu = min(self.relu, x.abs().min().item())

    def see_token(self, logits):
        best, second = logits.topk(2).values.tolist()
        self.token = min(self.token, best - second)


class Model:
    def __init__(self, config, tensors, dtype=torch.float64):
        """tensors: by name as in the folder; they are given gradients. float64 but to see what float32 would make of it."""
        self.config = config
        self.dtype = dtype
        self.moe = config.get("moe", NO_MOE)
        self.hyper = {**HYPER_DEFAULTS, **config["hypermoe"]} if "hypermoe" in config else {"kind": "moe"}
        self.tensors = {name.removeprefix("transformer."): value.to(dtype, copy=True).requires_grad_()
                        for name, value in tensors.items()}
        self.margins = Margins()

    @staticmethod
    def load(folder):
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        index = os.path.join(folder, "model.safetensors.index.json")
        shards = ["model.safetensors"]
        if os.path.exists(index):
            with open(index, encoding="utf-8") as file:
                shards = sorted(set(json.load(file)["weight_map"].values()))
        tensors = {}
        for shard in shards:
            tensors.update(tensor_files.read(os.path.join(folder, shard))[0])
        return Model(config, tensors)

    def __getitem__(self, name):
        return self.tensors[name]

    # Small parts.

    def relu(self, x):
        self.margins.see_relu(x)
        return x.clamp_min(0)

    def activation(self, x):
        kind = self.config.get("activation_function", "gelu_new")
        if kind == "relu":
            return self.relu(x)
        if kind == "gelu":
            return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
        assert kind == "gelu_new", kind
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    def norm(self, x, prefix, epsilon=None):
        if epsilon is None:
            epsilon = self.config.get("layer_norm_epsilon", 1e-5)
        mean = x.mean()
        variance = ((x - mean)**2).mean()
        return (x - mean) / torch.sqrt(variance + epsilon) * self[prefix + ".weight"] + self[prefix + ".bias"]

    def feed_forward(self, x, prefix):
        inner = self.activation(x @ self[prefix + ".c_fc.weight"] + self[prefix + ".c_fc.bias"])
        return inner @ self[prefix + ".c_proj.weight"] + self[prefix + ".c_proj.bias"]

    def linear(self, x, prefix):
        y = self[prefix + ".weight"] @ x
        return y + self[prefix + ".bias"] if prefix + ".bias" in self.tensors else y

    def attention(self, x_SD, prefix):
        heads = self.config["n_head"]
        qkv = x_SD @ self[prefix + ".c_attn.weight"] + self[prefix + ".c_attn.bias"]
        length, width = x_SD.shape
        size = width // heads
        rows = []
        for i in range(length):
            parts = []
            for h in range(heads):
                cut = slice(h * size, (h + 1) * size)
                query = qkv[i, :width][cut]
                scores = torch.stack([query @ qkv[j, width:2 * width][cut] for j in range(i + 1)]) / math.sqrt(size)
                weights = scores.softmax(0)
                parts.append(sum(weights[j] * qkv[j, 2 * width:][cut] for j in range(i + 1)))
            rows.append(torch.cat(parts))
        return torch.stack(rows) @ self[prefix + ".c_proj.weight"] + self[prefix + ".c_proj.bias"]

    # The sparse sub-layer.

    def route(self, x, layer):
        """One token: logits and probabilities of all experts, the chosen ones best first, their gates."""
        k = self.moe["top_k"]
        logits = x @ self[f"h.{layer}.mlp.router.w_gate"]
        probs = logits.softmax(0)
        self.margins.see_order(probs, k)
        chosen = sorted(range(len(probs)), key=lambda e: (-probs[e].item(), e))[:k]
        gates = [probs[e] for e in chosen]
        if self.moe.get("renormalize", False):
            total = sum(gates)
            gates = [gate / total for gate in gates]
        return {"logits": logits, "probs": probs, "chosen": chosen, "gates": gates, "kept": [True] * k}

    def limit(self, rows):
        """Marks the choices for which there is no room; rows: by batch row, the tokens' decisions."""
        capacity = self.moe.get("capacity", {"mode": "none"})
        if capacity["mode"] == "none":
            return
        experts, k = self.moe["num_experts"], self.moe["top_k"]
        if capacity["mode"] == "fixed_per_row":
            groups, room = rows, capacity["value"]
        else:
            assert capacity["mode"] == "factor_per_group", capacity
            groups = [[token for row in rows for token in row]]
            room = max(4, math.floor(float(capacity["value"]) * k * len(groups[0]) / experts))
        for group in groups:
            taken = [0] * experts
            for rank in range(k):
                for token in group:
                    expert = token["chosen"][rank]
                    token["kept"][rank] = taken[expert] < room
                    taken[expert] += token["kept"][rank]

    def scope(self, key, layer):
        return {"layer": str(layer), "stack": "decoder", "model": "model"}[self.hyper[key]]

    def condition_vector(self, x, token, layer):
        """What the hypernetwork is told about the token: p of Eq. 6, or x itself."""
        condition = self.hyper["condition"]
        if condition == "hidden":
            return x
        embedding = self[f"hypermoe.expert_embedding.{self.scope('emb_scope', layer)}.weight"]
        experts = range(self.moe["num_experts"])
        if condition == "selected":
            z = [1.0 if e in token["chosen"] else 0.0 for e in experts]
        elif self.hyper["z"] == "one_minus_prob":
            z = [1 - token["probs"][e] for e in experts]
        else:
            z = [0.0 if e in token["chosen"] else 1.0 for e in experts]
        weighted = sum(z[e] * embedding[e] for e in experts)
        if self.hyper["agg"] == "mean" and sum(z) > 0:
            weighted = weighted / sum(z)
        mlp = f"hypermoe.selection_mlp.{self.scope('sel_mlp_scope', layer)}"
        return self.linear(self.relu(self.linear(weighted, mlp + ".0")), mlp + ".2")

    def hyper_expert(self, x, token, layer):
        generator = f"hypermoe.generator.{self.scope('share', layer)}"
        width, inner = self.config["n_embd"], self.hyper["bottleneck_dim"]
        told = torch.cat([self.condition_vector(x, token, layer), self["hypermoe.layer_embedding.weight"][layer]])
        hidden = self.linear(told, generator + ".project")
        if self.hyper["k_act"] == "relu":
            hidden = self.relu(hidden)
        if self.hyper["k_norm"] == "layernorm":
            hidden = self.norm(hidden, generator + ".norm", 1e-5)
        down = self.linear(hidden, generator + ".down").reshape(width, inner)
        up = self.linear(hidden, generator + ".up").reshape(inner, width)
        offsets = self.hyper["gen_bias"]
        down_offset = self.linear(hidden, generator + ".down_offset") if offsets else 0.0
        up_offset = self.linear(hidden, generator + ".up_offset") if offsets else 0.0
        return self.relu(x @ down + down_offset) @ up + up_offset

    def baked_expert(self, x, token, layer):
        (expert,) = token["chosen"]
        baked = f"hypermoe.baked.{layer}."
        down, up = self[baked + "down"][expert], self[baked + "up"][expert]
        offsets = self.hyper["gen_bias"]
        down_offset = self[baked + "down_offset"][expert] if offsets else 0.0
        up_offset = self[baked + "up_offset"][expert] if offsets else 0.0
        return self.relu(x @ down + down_offset) @ up + up_offset

    def scaled_hyper_expert(self, x, token, layer):
        if self.hyper["on_dropped"] == "skip" and not any(token["kept"]):
            return torch.zeros_like(x)
        baked = self.hyper.get("baked", False)
        y = self.baked_expert(x, token, layer) if baked else self.hyper_expert(x, token, layer)
        if self.hyper["scale"] == "gate":
            return sum(token["gates"]) * y
        if self.hyper["scale"] == "learned":
            return self[f"hypermoe.scale.{layer}"][0] * y
        return y

    def sparse_token(self, x, token, layer):
        mlp = f"h.{layer}.mlp"
        y = torch.zeros_like(x)
        for expert, gate, kept in zip(token["chosen"], token["gates"], token["kept"]):
            if kept:
                y = y + gate * self.feed_forward(x, f"{mlp}.experts.expert_{expert}")
        kind = self.hyper["kind"]
        if kind == "hyper":
            y = y + self.scaled_hyper_expert(x, token, layer)
        elif kind == "moe_share":
            y = y + self.feed_forward(x, mlp + ".shared_expert")
        elif kind == "adapter":
            y = y + self.linear(self.relu(self.linear(x, mlp + ".adapter.down")), mlp + ".adapter.up")
        return y

    # The whole.

    def forward(self, input_ids_BS, limited=True):
        """Logits [B,S,V], and the decisions by sparse layer, row and position."""
        count, length = input_ids_BS.shape
        x = [[self["wte.weight"][input_ids_BS[b, s]] + self["wpe.weight"][s] for s in range(length)]
             for b in range(count)]
        routing = {}
        for layer in range(self.config["n_layer"]):
            h = f"h.{layer}"
            for b in range(count):
                attended = self.attention(torch.stack([self.norm(v, h + ".ln_1") for v in x[b]]), h + ".attn")
                x[b] = [x[b][s] + attended[s] for s in range(length)]
            normed = [[self.norm(v, h + ".ln_2") for v in row] for row in x]
            if layer in self.moe["sparse_layers"]:
                decisions = [[self.route(v, layer) for v in row] for row in normed]
                if limited:
                    self.limit(decisions)
                routing[layer] = decisions
                added = [[self.sparse_token(v, token, layer) for v, token in zip(*pair)]
                         for pair in zip(normed, decisions)]
            else:
                added = [[self.feed_forward(v, h + ".mlp") for v in row] for row in normed]
            x = [[x[b][s] + added[b][s] for s in range(length)] for b in range(count)]
        logits = [torch.stack([self["wte.weight"] @ self.norm(v, "ln_f") for v in row]) for row in x]
        return torch.stack(logits), routing

    def decode(self, input_ids_BS, prompt_length, max_new_tokens):
        rows = []
        with torch.no_grad():
            for b in range(input_ids_BS.shape[0]):
                ids = input_ids_BS[b, :prompt_length].tolist()
                for _ in range(max_new_tokens):
                    logits = self.forward(torch.tensor([ids]), limited=False)[0][0, -1]
                    self.margins.see_token(logits)
                    ids.append(logits.argmax().item())
                rows.append(ids[prompt_length:])
        return torch.tensor(rows)
