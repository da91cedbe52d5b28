// A SentencePiece model for tests, of T5's kind but with a few pieces.
#pragma once

#include <string>

#include "configs/sentencepiece.pb.h"
#include "tests/support/temporary_folder.h"

namespace hypermoe {

inline void AddPiece(SentencePieceModel* model, const std::string& text, double score,
                     SentencePieceModel::Piece::Type type = SentencePieceModel::Piece::NORMAL) {
  SentencePieceModel::Piece* piece = model->add_pieces();
  piece->set_piece(text);
  piece->set_score(static_cast<float>(score));
  piece->set_type(type);
}

// 0 <pad>, 1 </s>, 2 <unk>, 3 the space, 4 "_to", 5 "_be", 6 "t", 7 "o", 8 "b", 9 "e", 10 ".".
inline SentencePieceModel SmallModel() {
  using Piece = SentencePieceModel::Piece;
  SentencePieceModel model;
  AddPiece(&model, "<pad>", 0, Piece::CONTROL);
  AddPiece(&model, "</s>", 0, Piece::CONTROL);
  AddPiece(&model, "<unk>", 0, Piece::UNKNOWN);
  AddPiece(&model, "\u2581", -2);
  AddPiece(&model, "\u2581to", -3);
  AddPiece(&model, "\u2581be", -3);
  for (const char* letter : {"t", "o", "b", "e", "."}) AddPiece(&model, letter, -5);
  model.mutable_trainer()->set_unk_id(2);
  model.mutable_trainer()->set_bos_id(-1);
  model.mutable_trainer()->set_eos_id(1);
  model.mutable_trainer()->set_pad_id(0);
  return model;
}

// Writes SmallModel(); the tokenizer's name, "spm:FILE".
inline std::string WriteTinySentencePiece(const TemporaryFolder& folder) {
  return "spm:" + folder.Write("spiece.model", SmallModel().SerializeAsString());
}

}  // namespace hypermoe
