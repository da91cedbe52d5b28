"""What a golden file holds for a model of gpt2_reference: losses, gradients, routing, tokens."""

import json
import math

import torch


def cross_entropy(logits_BSV, labels_BS):
    losses = []
    for b in range(labels_BS.shape[0]):
        for s in range(labels_BS.shape[1] - 1):
            label = labels_BS[b, s + 1].item()
            if label != -100:
                losses.append(-logits_BSV[b, s].log_softmax(0)[label])
    return sum(losses) / len(losses) if losses else torch.zeros((), dtype=logits_BSV.dtype)


def router_losses(model, routing):
    coefficients = model.moe.get("losses", {})
    losses = {name: torch.zeros((), dtype=model.dtype)
              for name in ("switch_balance", "importance_cv2", "load_cv2", "router_z")}
    for decisions in routing.values():
        tokens = [token for row in decisions for token in row]
        for name, value in layer_losses(tokens, model.moe["num_experts"], model.moe["top_k"]).items():
            losses[name] = losses[name] + coefficients.get(name, 0.0) * value
    return losses


def cv2(values):
    if len(values) == 1:
        return torch.zeros_like(values[0])
    mean = sum(values) / len(values)
    variance = sum((value - mean)**2 for value in values) / (len(values) - 1)
    return variance / (mean**2 + 1e-10)


def layer_losses(tokens, experts, k):
    """The four router losses of one sparse layer, without coefficients."""
    zero = torch.zeros_like(tokens[0]["probs"][0])
    importance, load = [zero] * experts, [zero] * experts
    for token in tokens:
        for expert, gate in zip(token["chosen"], token["gates"]):
            importance[expert] = importance[expert] + gate
            load[expert] = load[expert] + 1
    mean_probs = sum(token["probs"] for token in tokens) / len(tokens)
    shares = [count / (k * len(tokens)) for count in load]
    return {"switch_balance": experts * sum(shares[e] * mean_probs[e] for e in range(experts)),
            "importance_cv2": cv2(importance),
            "load_cv2": cv2(load),
            "router_z": sum(token["logits"].logsumexp(0)**2 for token in tokens) / len(tokens)}


def golden(model, input_ids_BS, labels_BS, decoding=None):
    """What golden.safetensors holds for `model`: tensors and metadata. `decoding`: settings of tokens.greedy."""
    logits, routing = model.forward(input_ids_BS)
    losses = {"ce": cross_entropy(logits, labels_BS)}
    total = losses["ce"]
    if routing:
        losses.update(router_losses(model, routing))
        total = sum(losses.values())
    losses["total"] = total
    tensors = {"input_ids": input_ids_BS, "labels": labels_BS, "logits": logits.detach()}
    tensors.update({f"loss.{name}": value.detach().reshape(1) for name, value in losses.items()})
    for layer, decisions in routing.items():
        tensors[f"routing.{layer}.experts"] = torch.tensor([[t["chosen"] for t in row] for row in decisions])
        tensors[f"routing.{layer}.kept"] = torch.tensor([[t["kept"] for t in row] for row in decisions],
                                                        dtype=torch.uint8)
    if not model.hyper.get("baked", False):
        names = list(model.tensors)
        gradients = torch.autograd.grad(total, [model[name] for name in names], allow_unused=True)
        for name, gradient in zip(names, gradients):
            tensors["grad." + name] = torch.zeros_like(model[name]) if gradient is None else gradient
    metadata = {"dtype": "float64"}
    if decoding is not None:
        tensors["tokens.greedy"] = model.decode(input_ids_BS, decoding["prompt_length"], decoding["max_new_tokens"])
        metadata["tokens.greedy"] = json.dumps(decoding)
    return tensors, metadata


def differences(actual, expected, tolerance=1e-9):
    """Names of entries that are missing, unexpected or not equal, with the error of those that differ by numbers."""
    wrong = {name: math.inf for name in set(actual) ^ set(expected)}
    for name in set(actual) & set(expected):
        a, b = actual[name].detach(), expected[name].detach()
        a = a.to(b.dtype) if a.is_floating_point() else a
        if a.shape != b.shape:
            wrong[name] = math.inf
        elif not b.is_floating_point():
            if not torch.equal(a, b):
                wrong[name] = math.inf
        else:
            error = (a - b).abs().max().item() / max(b.abs().max().item(), 1e-3)
            if not error <= tolerance:
                wrong[name] = error
    return wrong
