#include <algorithm>

#include "runtime/tasks/basic_task.h"

namespace hypermoe {
namespace {

// Lines that hold more than white space, with what ends them.
std::string WithoutBlankLines(std::string_view text) {
  std::string lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size() - 1) + 1;
    if (!Stripped(text.substr(0, end)).empty()) lines += text.substr(0, end);
    text.remove_prefix(end);
  }
  return lines;
}

// Articles of Wikipedia, to be predicted token by token. T5's templates have the file as it is,
// those of the paper's code leave blank lines out, as its reader does.
class WikitextTask : public BasicTask {
 public:
  WikitextTask()
      : BasicTask(
            {"wikitext", "WikiText", Files(), {"perplexity", "authors_perplexity"}, Defaults()}) {}

  bool is_text() const override { return true; }

  absl::StatusOr<std::vector<TaskExample>> ReadFile(const std::string& path,
                                                    DataConfig::Templates templates, TaskUse,
                                                    bool) const override {
    ASSIGN_OR_RETURN(const ExampleText file, ReadExampleText(path));
    std::vector<TaskExample> examples(1);
    examples[0].target =
        templates == DataConfig::t5 ? std::string(file.text) : WithoutBlankLines(file.text);
    if (Stripped(file.text).empty()) examples.clear();
    RETURN_IF_ERROR(CheckNotEmpty(examples, path));
    return examples;
  }

 private:
  static SplitFiles Files() {
    return {{"wiki.train.raw", "wiki.train.tokens", "train.txt"},
            {"wiki.valid.raw", "wiki.valid.tokens", "valid.txt"},
            {"wiki.test.raw", "wiki.test.tokens", "test.txt"}};
  }

  static TaskDefaults Defaults() {
    TaskDefaults defaults;
    defaults.source_length = 0;
    defaults.target_length = 1024;
    return defaults;
  }
};

}  // namespace

const Task& Wikitext() {
  static const auto& task = *new WikitextTask();
  return task;
}

}  // namespace hypermoe
