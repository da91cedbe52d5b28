#!/usr/bin/env python3
"""Times training steps of a plain PyTorch GPT-2, as the yardstick of bench_train_step.

The models are those of bench_train_step's kinds dense and moe at the same shape, written as one writes them in PyTorch:
scaled_dot_product_attention, AdamW (fused), and for moe the usual loop over experts. Nothing is compiled or tuned. Prints
a JSON line for each kind, with the names of bench_train_step --json.
"""

import argparse
import contextlib
import json
import math
import statistics
import time
import warnings

warnings.filterwarnings("ignore", message="Failed to initialize NumPy")

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

VOCAB, WIDTH, HEADS, FFN = 50257, 768, 12, 3072
BALANCE_COEFFICIENT = 0.01  # Switch Transformer, arXiv:2101.03961, Eq. 4


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = (part.view(batch, length, HEADS, -1).transpose(1, 2) for part in self.qkv(x).split(WIDTH, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).reshape(batch, length, WIDTH))


class FeedForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(WIDTH, FFN)
        self.down = nn.Linear(FFN, WIDTH)

    def forward(self, x):
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class SwitchFeedForward(nn.Module):
    """Top-1 mixture of experts; keeps the balance loss of its last forward."""

    def __init__(self, num_experts):
        super().__init__()
        self.router = nn.Linear(WIDTH, num_experts, bias=False)
        self.experts = nn.ModuleList(FeedForward() for _ in range(num_experts))

    def forward(self, x):
        tokens = x.reshape(-1, WIDTH)
        # The router computes in float32 also under autocast, as bench_train_step's does.
        with torch.autocast("cpu", enabled=False):
            probabilities = F.softmax(F.linear(tokens.float(), self.router.weight), dim=-1)
        gate, chosen = probabilities.max(dim=-1)
        counts = torch.bincount(chosen, minlength=len(self.experts))
        share = counts.to(probabilities.dtype) / tokens.shape[0]
        self.balance_loss = len(self.experts) * (share * probabilities.mean(dim=0)).sum()
        out = torch.zeros_like(tokens)
        for index, expert in enumerate(self.experts):
            rows = (chosen == index).nonzero().squeeze(1)
            y = expert(tokens.index_select(0, rows)) * gate.index_select(0, rows).unsqueeze(1)
            out.index_add_(0, rows, y.to(out.dtype))
        return out.view_as(x)


class Block(nn.Module):
    def __init__(self, feed_forward):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(WIDTH), Attention()
        self.norm2, self.feed_forward = nn.LayerNorm(WIDTH), feed_forward

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


class Gpt2(nn.Module):
    def __init__(self, kind, arguments):
        super().__init__()
        self.tokens = nn.Embedding(VOCAB, WIDTH)
        self.positions = nn.Embedding(arguments.sequence, WIDTH)
        self.blocks = nn.ModuleList(
            Block(FeedForward() if kind == "dense" else SwitchFeedForward(arguments.experts))
            for _ in range(arguments.layers))
        self.norm = nn.LayerNorm(WIDTH)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                into_residual = name.endswith(("proj.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / (math.sqrt(2 * arguments.layers) if into_residual else 1))
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def losses(self, inputs, labels):
        """The cross-entropy, and the balance loss with its coefficient."""
        x = self.tokens(inputs) + self.positions.weight
        balance = 0.0
        for block in self.blocks:
            x = block(x)
            if isinstance(block.feed_forward, SwitchFeedForward):
                balance = balance + BALANCE_COEFFICIENT * block.feed_forward.balance_loss
        logits = F.linear(self.norm(x), self.tokens.weight)  # tied to the embedding
        return F.cross_entropy(logits.view(-1, VOCAB).float(), labels.reshape(-1)), balance


class Training:
    """A model in training and what its steps took."""

    def __init__(self, kind, arguments):
        self.kind, self.arguments, self.seconds = kind, arguments, []
        torch.manual_seed(1)
        self.model = Gpt2(kind, arguments)
        matrices = [p for p in self.model.parameters() if p.dim() > 1]
        vectors = [p for p in self.model.parameters() if p.dim() <= 1]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)

    def step(self, counts):
        shape = (self.arguments.batch, self.arguments.sequence + 1)
        rows = torch.randint(VOCAB, shape)
        narrow = self.arguments.dtype == "bfloat16"
        begin = time.perf_counter()
        self.optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16) if narrow else contextlib.nullcontext():
            loss, balance = self.model.losses(rows[:, :-1], rows[:, 1:])
        (loss + balance).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.loss = loss.item()
        if counts:
            self.seconds.append(time.perf_counter() - begin)

    def result(self):
        tokens = self.arguments.batch * self.arguments.sequence
        cuts = statistics.quantiles(self.seconds, n=4, method="inclusive") if len(self.seconds) > 1 else self.seconds * 3
        return {"program": "pytorch", "kind": self.kind, "dtype": self.arguments.dtype, "batch": self.arguments.batch,
                "sequence": self.arguments.sequence, "steps": len(self.seconds), "tokens_per_second": tokens / cuts[1],
                "lower_quartile": tokens / cuts[2], "upper_quartile": tokens / cuts[0], "loss": self.loss,
                "threads": torch.get_num_threads(), "torch": torch.__version__}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", default="dense,moe", help="of dense and moe, separated by commas")
    for name, default in (("batch", 4), ("sequence", 256), ("layers", 4), ("experts", 8), ("steps", 20), ("warmup", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=0, help="0: as PyTorch chooses")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="bfloat16: by autocast")
    arguments = parser.parse_args()
    kinds = arguments.kind.split(",")
    if not set(kinds) <= {"dense", "moe"}:
        parser.error(f"--kind {arguments.kind}: only dense and moe are known here")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    trainings = [Training(kind, arguments) for kind in kinds]
    for step in range(arguments.warmup + arguments.steps):
        for training in trainings if step % 2 == 0 else reversed(trainings):
            training.step(counts=step >= arguments.warmup)
    for training in trainings:
        print(json.dumps(training.result()))


if __name__ == "__main__":
    main()
