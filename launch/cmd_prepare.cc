// hypermoe prepare: text files to a token file.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "launch/commands.h"
#include "runtime/prepare.h"

namespace hypermoe {
namespace {

struct Arguments {
  PrepareOptions options;
  bool no_end_of_text = false;
  std::string on_bad_text = "stop";
};

absl::Status Run(const Arguments& arguments, Communicator& world) {
  if (world.size() != 1) {
    return UsageError(absl::StrCat("prepare works on one rank, and this job has ", world.size(),
                                   ": start it without mpirun"));
  }
  PrepareOptions options = arguments.options;
  options.end_of_text = !arguments.no_end_of_text;
  options.skip_bad_text = arguments.on_bad_text == "skip";
  ASSIGN_OR_RETURN(const PrepareResult result, Prepare(options, stderr));
  std::string text =
      absl::StrCat("prepared ", result.tokens, " tokens in ", result.documents,
                   " documents: ", options.output, ".bin, ", options.output, ".idx\n");
  if (options.skip_bad_text) absl::StrAppend(&text, "skipped as malformed: ", result.skipped, "\n");
  return WriteStdout(text);
}

}  // namespace

JobBody DefinePrepare(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  PrepareOptions& options = arguments->options;
  app.add_option("--input", options.inputs,
                 "Text file, or JSON lines if it ends in .jsonl; may be repeated")
      ->required()
      ->type_name("FILE")
      ->allow_extra_args(false);
  app.add_option("--tokenizer", options.tokenizer,
                 "byte: 257 ids, the bytes and end of text; gpt2:DIR: byte pairs by vocab.json and "
                 "merges.txt in the folder DIR; spm:FILE: a SentencePiece model such as T5's "
                 "spiece.model")
      ->type_name("NAME")
      ->capture_default_str();
  app.add_option("--output", options.output, "Prefix of the token file: PREFIX.bin and PREFIX.idx")
      ->required()
      ->type_name("PREFIX");
  app.add_flag("--no_end_of_text", arguments->no_end_of_text,
               "Join documents without the tokenizer's end-of-text id between them, as T5 is "
               "trained; for model.family switch_transformers");
  app.add_option("--on_bad_text", arguments->on_bad_text,
                 "Malformed text: stop with its file, line and column, or skip and count it")
      ->check(CLI::IsMember({"stop", "skip"}))
      ->capture_default_str();
  app.add_option("--text_field", options.text_field, "Field of JSON lines that holds the text")
      ->type_name("NAME")
      ->capture_default_str();
  app.footer(
      "Example:\n"
      "  hypermoe prepare --input a.txt --input b.jsonl --tokenizer byte --output data/mine");
  return [arguments](std::shared_ptr<Communicator> world) { return Run(*arguments, *world); };
}

}  // namespace hypermoe
