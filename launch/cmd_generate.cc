// hypermoe generate: text from a checkpoint, as a model without an encoder goes on with a prompt or
// as one with an encoder answers the texts of a file.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "launch/commands.h"
#include "launch/gpus.h"
#include "runtime/agreement.h"
#include "runtime/generate_file.h"
#include "runtime/generator.h"

namespace hypermoe {
namespace {

struct Arguments {
  std::string checkpoint;
  std::optional<std::string> prompt;
  GenerateOptions sampling;
  bool greedy = false;
  GenerateFileOptions file;
  std::string early_stopping;  // "" not given
  std::vector<std::string> overrides;
};

absl::Status CheckCommandLine(const Arguments& arguments) {
  const BeamSearchOptions& search = arguments.file.search;
  if (!arguments.prompt && arguments.file.input.empty()) {
    return UsageError(
        "nothing to generate from: give --prompt TEXT, or to a model with an encoder --input FILE "
        "and --output FILE");
  }
  if (search.min_length > search.max_length) {
    return UsageError("--min_length " + std::to_string(search.min_length) +
                      " is above --max_length " + std::to_string(search.max_length));
  }
  if (search.beams == 1 && !arguments.early_stopping.empty()) {
    return UsageError("--early_stopping " + arguments.early_stopping +
                      " says when several beams stop: give --beams of at least 2 too");
  }
  return absl::OkStatus();
}

absl::Status RunPrompt(GenerateOptions options, bool greedy, int expert_parallel,
                       std::shared_ptr<Communicator> world) {
  if (greedy) options.temperature = 0;
  ASSIGN_OR_RETURN(const std::string text, Generate(options, world, expert_parallel));
  return WriteResult(options.prompt + text + "\n", *world);
}

absl::Status RunFile(GenerateFileOptions options, const std::string& early_stopping,
                     int expert_parallel, std::shared_ptr<Communicator> world) {
  if (early_stopping == "true") options.search.early_stopping = EarlyStopping::kYes;
  if (early_stopping == "never") options.search.early_stopping = EarlyStopping::kNever;
  ASSIGN_OR_RETURN(const GenerateFileResult result,
                   GenerateFile(options, world, expert_parallel, stderr));
  const nlohmann::ordered_json line = {{"texts", result.texts},
                                       {"tokens", result.tokens},
                                       {"seconds", result.seconds},
                                       {"output", options.output}};
  return WriteResult(
      line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n", *world);
}

absl::Status Run(const Arguments& arguments, std::shared_ptr<Communicator> world) {
  RETURN_IF_ERROR(CheckCommandLine(arguments));
  const absl::StatusOr<LayoutOverrides> layout =
      ReadLayoutOverrides(arguments.overrides, ComputingFields(), world->size());
  RETURN_IF_ERROR(Agree(*world, layout.status()));
  ASSIGN_OR_RETURN(world, WorldOnDevice(std::move(world), layout->mesh));
  UseThreads(0);
  const int expert_parallel = layout->mesh.expert_parallel();
  if (arguments.prompt) {
    GenerateOptions options = arguments.sampling;
    options.prompt = *arguments.prompt;
    options.checkpoint = arguments.checkpoint;
    options.dtype = layout->dtype;
    return RunPrompt(std::move(options), arguments.greedy, expert_parallel, std::move(world));
  }
  GenerateFileOptions options = arguments.file;
  options.checkpoint = arguments.checkpoint;
  options.dtype = layout->dtype;
  return RunFile(std::move(options), arguments.early_stopping, expert_parallel, std::move(world));
}

// Of a model without an encoder; returns --prompt itself.
CLI::Option* AddPromptOptions(CLI::App& app, Arguments& arguments) {
  GenerateOptions& options = arguments.sampling;
  // CLI11 makes nothing of an empty text where it fills an optional itself.
  CLI::Option* prompt =
      app.add_option_function<std::string>(
             "--prompt", [&arguments](const std::string& text) { arguments.prompt = text; },
             "Text for a model without an encoder to go on from")
          ->type_name("TEXT");
  app.add_option("--max_tokens", options.max_tokens, "Most tokens to add")
      ->check(Within(1, 1e9))
      ->type_name("N")
      ->capture_default_str()
      ->needs(prompt);
  CLI::Option* temperature =
      app.add_option("--temperature", options.temperature, "Divides the logits; 0 is greedy")
          ->check(Within(0, 100))
          ->type_name("T")
          ->capture_default_str()
          ->needs(prompt);
  app.add_flag("--greedy", arguments.greedy,
               "Always the likeliest token: the same as --temperature 0")
      ->excludes(temperature)
      ->needs(prompt);
  app.add_option("--top_p", options.top_p,
                 "Sample from the smallest set of tokens that has this probability")
      ->check(Within(1e-6, 1))
      ->type_name("P")
      ->capture_default_str()
      ->needs(prompt);
  app.add_option("--seed", options.seed, "Of the sampling")
      ->check(Within(0, 1e19))
      ->type_name("N")
      ->capture_default_str()
      ->needs(prompt);
  return prompt;
}

// Of a model with an encoder.
void AddFileOptions(CLI::App& app, Arguments& arguments, CLI::Option* prompt) {
  GenerateFileOptions& options = arguments.file;
  BeamSearchOptions& search = options.search;
  CLI::Option* input =
      app.add_option("--input", options.input,
                     "Texts for a model with an encoder: one a line, or the field text of JSON "
                     "lines if it ends in .jsonl")
          ->type_name("FILE")
          ->excludes(prompt);
  CLI::Option* output =
      app.add_option("--output", options.output,
                     "Where a line of JSON goes for each text: input, output, token_ids, score; a "
                     "file of that name is replaced")
          ->type_name("FILE")
          ->needs(input);
  input->needs(output);
  const auto add = [&](const char* name, auto& value, double min, double max, const char* help) {
    app.add_option(name, value, help)
        ->check(Within(min, max))
        ->type_name("N")
        ->capture_default_str()
        ->needs(input);
  };
  add("--batch_size", options.batch_size, 1, 1e6,
      "Texts that are worked on at a time, over all ranks");
  add("--beams", search.beams, 1, 1e4, "Beams of the beam search; 1 is greedy");
  add("--length_penalty", search.length_penalty, -100, 100,
      "Scores are divided by the number of tokens to this power: above 0 it favours long outputs");
  add("--no_repeat_ngram", search.no_repeat_ngram, 0, 1e6,
      "So many tokens in a row do not occur twice in an output; 0: no such rule");
  add("--min_length", search.min_length, 0, 1e6,
      "No end before so many tokens, the start token counted");
  add("--max_length", search.max_length, 2, 1e6,
      "Most tokens of an output, the start token counted");
  app.add_option("--early_stopping", arguments.early_stopping,
                 "When a text with as many finished outputs as beams stops: true: at once; false, "
                 "the default: once the best unfinished one, as long as it is, scores no better; "
                 "never: once it cannot at any length up to max_length")
      ->check(CLI::IsMember({"false", "true", "never"}))
      ->needs(input);
}

}  // namespace

JobBody DefineGenerate(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  app.add_option("--checkpoint", arguments->checkpoint,
                 "Run folder (its best checkpoint where it keeps one, else its newest), checkpoint "
                 "folder or model folder")
      ->required()
      ->type_name("DIR");
  CLI::Option* prompt = AddPromptOptions(app, *arguments);
  AddFileOptions(app, *arguments, prompt);
  AddSetOption(app, &arguments->overrides,
               "mesh.expert_parallel, mesh.device, mesh.gpu_transport or runtime.dtype, where it "
               "should differ from training");
  app.footer(
      "With --prompt it prints the prompt and its continuation; with --input the last line of "
      "standard output is a JSON object with texts, tokens, seconds and output.\n"
      "Examples:\n"
      "  mpirun -np 2 hypermoe generate --checkpoint runs/a --prompt \"To be\" --max_tokens 200 "
      "--seed 1\n"
      "  mpirun -np 2 hypermoe generate --checkpoint models/switch --input articles.jsonl --output "
      "summaries.jsonl --beams 4 --max_length 128 --no_repeat_ngram 3");
  return [arguments](std::shared_ptr<Communicator> world) {
    return Run(*arguments, std::move(world));
  };
}

}  // namespace hypermoe
