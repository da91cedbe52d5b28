// Model folders made for tests, and how two are compared.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace hypermoe {

// GPT-2's keys of a model of 3 blocks, width 6; with the blocks moe and hypermoe where they are not
// null.
nlohmann::json TinyConfig(const nlohmann::json& moe = nullptr,
                          const nlohmann::json& hypermoe = nullptr);
// A block moe of 5 experts in blocks 0 and 2, with `changes`.
nlohmann::json TinyMoe(const nlohmann::json& changes = nlohmann::json::object());
// A block hypermoe with small dimensions, and `changes`.
nlohmann::json TinyHyper(const nlohmann::json& changes = nlohmann::json::object());

// switch_transformers of width 6, 2 encoder and 3 decoder blocks, block 1 of each sparse, and the
// like of t5, with 2 blocks each; with `changes` (RFC 7396).
nlohmann::json TinySwitch(const nlohmann::json& changes = nlohmann::json::object());
nlohmann::json TinyT5(const nlohmann::json& changes = nlohmann::json::object());

// The tensors that `config` calls for, under the names of the model's parameters. Every element
// says which tensor it belongs to and where, as far as `dtype` can hold that.
std::map<std::string, at::Tensor> MadeTensors(const nlohmann::json& config, c10::ScalarType dtype);

// The same with random values, of standard deviation 0.5, that a model can compute with.
std::map<std::string, at::Tensor> RandomTensors(const nlohmann::json& config,
                                                c10::ScalarType dtype);

// Makes `folder` with config.json and model.safetensors.
void WriteMadeFolder(const std::string& folder, const nlohmann::json& config,
                     const std::map<std::string, at::Tensor>& tensors);

// All tensors in the .safetensors files of `folder`, whatever its index says.
std::map<std::string, at::Tensor> TensorsOfFolder(const std::string& folder);

// Expects both folders to hold the same tensors, bit for bit, and equal config.json.
void ExpectSameFolders(const std::string& actual, const std::string& expected);

}  // namespace hypermoe
