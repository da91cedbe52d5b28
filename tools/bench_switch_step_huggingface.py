#!/usr/bin/env python3
"""Times training steps, or greedy decoding, of Hugging Face's Switch Transformer, as the yardstick of bench_switch_step.

The model is transformers' own SwitchTransformersForConditionalGeneration with random weights in the shape of bench_switch_step's
kind moe. A training step is what transformers' Trainer does with its defaults: the model's loss, router losses included,
backward, clipping of the gradient's norm to 1 and fused AdamW; with bfloat16 the model is cast to it, for its sparse layers fail
under autocast. Prints a JSON line with the names of bench_switch_step --json.
"""

import argparse
import json
import statistics
import time
import warnings

warnings.filterwarnings("ignore")

import torch  # noqa: E402
import transformers  # noqa: E402

VOCAB, WIDTH, HEADS, FFN = 32128, 768, 12, 3072
CAPACITY = 80  # of an expert in a row: bench_switch_step's
START, PAD, END = 0, 0, 256


def labels_of(inputs):
    """Labels of a row with so many inputs that T5's span corruption gives at density 0.15 and mean length 3."""
    tokens = inputs
    while True:  # the longest text that gives so many inputs
        noise = round((tokens + 1) * 0.15)
        spans = round(noise / 3)
        if tokens + 1 - noise + spans + 1 > inputs:
            break
        tokens += 1
    noise = round(tokens * 0.15)
    return noise + round(noise / 3) + 1


def make_model(arguments):
    torch.manual_seed(1)
    config = transformers.SwitchTransformersConfig(
        vocab_size=VOCAB, d_model=WIDTH, d_kv=WIDTH // HEADS, d_ff=FFN, num_heads=HEADS, num_layers=arguments.layers,
        num_decoder_layers=arguments.layers, num_sparse_encoder_layers=arguments.layers // 2,
        num_sparse_decoder_layers=arguments.layers // 2, num_experts=arguments.experts, expert_capacity=CAPACITY,
        router_jitter_noise=0.01, router_dtype="float32", dropout_rate=0.0, initializer_factor=0.316,
        layer_norm_epsilon=1e-6, decoder_start_token_id=START, pad_token_id=PAD, eos_token_id=END)
    model = transformers.SwitchTransformersForConditionalGeneration(config)
    return model.to(getattr(torch, arguments.dtype))


class Training:
    def __init__(self, model, arguments):
        self.model, self.shape = model, (arguments.batch, arguments.sequence)
        self.labels = labels_of(arguments.sequence)
        self.tokens = arguments.batch * (arguments.sequence + self.labels)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, fused=True)
        model.train()

    def step(self):
        inputs, labels = torch.randint(VOCAB, self.shape), torch.randint(VOCAB, (self.shape[0], self.labels))
        begin = time.perf_counter()
        self.optimizer.zero_grad()
        loss = self.model(input_ids=inputs, attention_mask=torch.ones_like(inputs), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        loss.item()
        return time.perf_counter() - begin


class Generation:
    def __init__(self, model, arguments):
        self.model, self.shape, self.new_tokens = model.eval(), (arguments.batch, arguments.sequence), arguments.new_tokens
        self.tokens = arguments.batch * arguments.new_tokens

    def step(self):
        inputs = torch.randint(VOCAB, self.shape)
        begin = time.perf_counter()
        with torch.no_grad():
            out = self.model.generate(inputs, attention_mask=torch.ones_like(inputs), num_beams=1, do_sample=False, use_cache=True,
                                      min_new_tokens=self.new_tokens, max_new_tokens=self.new_tokens)
        assert out.shape[1] == 1 + self.new_tokens
        return time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shape = [("batch", 4), ("sequence", 512), ("layers", 4), ("experts", 8), ("steps", 10), ("warmup", 2), ("new_tokens", 0)]
    for name, default in shape:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=0, help="0: as PyTorch chooses")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    work = (Generation if arguments.new_tokens else Training)(make_model(arguments), arguments)
    seconds = [work.step() for _ in range(arguments.warmup + arguments.steps)][arguments.warmup:]
    cuts = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    print(json.dumps({
        "program": "huggingface", "work": type(work).__name__.lower(), "kind": "moe", "dtype": arguments.dtype,
        "batch": arguments.batch, "sequence": arguments.sequence, "tokens": work.tokens, "steps": len(seconds),
        "tokens_per_second": work.tokens / cuts[1], "lower_quartile": work.tokens / cuts[2],
        "upper_quartile": work.tokens / cuts[0], "threads": torch.get_num_threads(), "torch": torch.__version__,
        "transformers": transformers.__version__}))


if __name__ == "__main__":
    main()
