// Small made-up files of tasks, and a configuration that is trained on them.
#pragma once

#include <string>
#include <vector>

#include "tests/support/tiny_training.h"

namespace hypermoe {

// Writes train.tsv (26 sentences) and dev.tsv (7) of SST-2 into `folder`, which exists.
void WriteSentiments(const std::string& folder);

// Writes train-v1.1.json (24 questions) and dev-v1.1.json (7) of SQuAD.
void WriteQuestions(const std::string& folder);
// The same, with these answers in dev-v1.1.json; one of them for each question.
void WriteQuestions(const std::string& folder, const std::vector<std::string>& dev_answers);

// Writes train.txt and valid.txt of WikiText, of some hundred bytes.
void WriteText(const std::string& folder);

// TinySwitchConfig, for `task` in `folder`.
RunConfig TinyTaskConfig(ModelConfig::Kind kind, RuntimeConfig::Dtype dtype,
                         const std::string& task, const std::string& folder);

}  // namespace hypermoe
