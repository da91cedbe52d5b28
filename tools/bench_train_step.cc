// Times whole training steps, or evaluation passes, of GPT-2-small blocks (step_benchmark.h).
#include "tools/step_benchmark.h"

int main(int argc, char** argv) {
  hypermoe::StepBenchmark benchmark;
  benchmark.name = "bench_train_step";
  benchmark.description =
      "Times training steps of GPT-2-small blocks (width 768, 12 heads, vocabulary 50257), all of "
      "them sparse but for kind dense.";
  benchmark.example =
      "mpirun -np 2 build/bench_train_step --kind moe,hyper,hyper+hyper.execution=owner";
  benchmark.settings = {"model.vocab_size=50257", "model.hidden_size=768", "model.num_heads=12",
                        "model.ffn_size=3072"};
  benchmark.layer_fields = {"model.num_layers"};
  benchmark.kinds = {"dense", "moe", "hyper"};
  return hypermoe::RunStepBenchmark(argc, argv, benchmark);
}
