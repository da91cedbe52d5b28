// Times whole training steps, evaluation passes or greedy decoding of Switch-base blocks
// (step_benchmark.h).
#include "tools/step_benchmark.h"

int main(int argc, char** argv) {
  hypermoe::StepBenchmark benchmark;
  benchmark.name = "bench_switch_step";
  benchmark.description =
      "Times training steps of Switch-base blocks (width 768, 12 heads, vocabulary 32128) on span "
      "corruption, every second block of encoder and decoder sparse. Tokens are those that the "
      "encoder reads and those that the decoder learns to say; with --new_tokens those it says.";
  benchmark.example =
      "build/bench_switch_step --dtype bfloat16\n"
      "  build/bench_switch_step --new_tokens 32 --batch 8";
  // The shape of configs/switch_base. Bytes in place of SentencePiece: what the ids stand for does
  // not matter, only that there are sentinels. An expert takes a row's share of the tokens times
  // 1.25, as Hugging Face's can, where a row has 512.
  benchmark.settings = {"model.family=switch_transformers",
                        "model.vocab_size=32128",
                        "model.hidden_size=768",
                        "model.num_heads=12",
                        "model.ffn_size=3072",
                        "model.activation=relu",
                        "model.layer_norm_epsilon=1e-6",
                        "model.initializer_factor=0.316",
                        "model.router_jitter=0.01",
                        "model.end_id=256",
                        "model.training_capacity.mode=fixed_per_row",
                        "model.training_capacity.tokens_per_row=80",
                        "data.tokenizer=byte"};
  benchmark.layer_fields = {"model.num_layers", "model.num_decoder_layers"};
  benchmark.kinds = {"moe", "hyper"};
  benchmark.sequence = 512;
  benchmark.steps = 10;
  return hypermoe::RunStepBenchmark(argc, argv, benchmark);
}
