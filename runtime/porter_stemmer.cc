#include "runtime/porter_stemmer.h"

#include <cstddef>

#include "absl/types/span.h"

namespace hypermoe {
namespace {

bool IsVowelLetter(char letter) {
  return std::string_view("aeiou").find(letter) != std::string_view::npos;
}

// y is a consonant at the start and after a vowel.
bool IsConsonant(std::string_view word, size_t i) {
  bool consonant = !IsVowelLetter(word[i]);
  if (word[i] != 'y') return consonant;
  size_t first = i;  // of a run of y
  while (first > 0 && word[first - 1] == 'y') --first;
  consonant = first == 0 || IsVowelLetter(word[first - 1]);
  return (i - first) % 2 == 0 ? consonant : !consonant;
}

// Porter's m: how often consonants follow vowels.
int Measure(std::string_view stem) {
  int measure = 0;
  for (size_t i = 1; i < stem.size(); ++i) {
    if (IsConsonant(stem, i) && !IsConsonant(stem, i - 1)) ++measure;
  }
  return measure;
}

bool HasVowel(std::string_view stem) {
  for (size_t i = 0; i < stem.size(); ++i) {
    if (!IsConsonant(stem, i)) return true;
  }
  return false;
}

bool EndsInDoubleConsonant(std::string_view word) {
  const size_t size = word.size();
  return size >= 2 && word[size - 1] == word[size - 2] && IsConsonant(word, size - 1);
}

// Porter's *o: consonant, vowel, consonant other than w, x, y. NLTK: a word of vowel and consonant
// too.
bool EndsShort(std::string_view word) {
  const size_t size = word.size();
  if (size == 2) return !IsConsonant(word, 0) && IsConsonant(word, 1);
  if (size < 3) return false;
  const char last = word[size - 1];
  return IsConsonant(word, size - 3) && !IsConsonant(word, size - 2) &&
         IsConsonant(word, size - 1) && last != 'w' && last != 'x' && last != 'y';
}

std::string_view Without(std::string_view word, size_t bytes) {
  return word.substr(0, word.size() - bytes);
}

bool Ends(std::string_view word, std::string_view suffix) {
  return word.size() >= suffix.size() && word.substr(word.size() - suffix.size()) == suffix;
}

struct Suffix {
  std::string_view from, to;
};

// The first suffix that `word` has decides: it is replaced if what is before it has more than
// `above` for its measure, and nothing else is tried.
std::string ReplaceSuffix(std::string_view word, absl::Span<const Suffix> suffixes, int above) {
  for (const Suffix& suffix : suffixes) {
    if (!Ends(word, suffix.from)) continue;
    const std::string_view stem = Without(word, suffix.from.size());
    if (Measure(stem) <= above) break;
    return std::string(stem).append(suffix.to);
  }
  return std::string(word);
}

// Plurals.
std::string Step1a(std::string_view word) {
  if (Ends(word, "ies")) return std::string(Without(word, word.size() == 4 ? 1 : 2));
  if (Ends(word, "sses")) return std::string(Without(word, 2));
  if (Ends(word, "ss") || !Ends(word, "s")) return std::string(word);
  return std::string(Without(word, 1));
}

// What is left of a word that has lost its -ed or -ing.
std::string Restore(std::string_view stem) {
  for (const std::string_view end : {"at", "bl", "iz"}) {
    if (Ends(stem, end)) return std::string(stem) + "e";
  }
  const char last = stem.back();
  if (EndsInDoubleConsonant(stem)) {
    const bool stays = last == 'l' || last == 's' || last == 'z';
    return std::string(stays ? stem : Without(stem, 1));
  }
  return Measure(stem) == 1 && EndsShort(stem) ? std::string(stem) + "e" : std::string(stem);
}

// -ed and -ing.
std::string Step1b(std::string_view word) {
  if (Ends(word, "ied")) return std::string(Without(word, word.size() == 4 ? 1 : 2));
  if (Ends(word, "eed"))
    return std::string(Measure(Without(word, 3)) > 0 ? Without(word, 1) : word);
  for (const std::string_view suffix : {"ed", "ing"}) {
    if (!Ends(word, suffix)) continue;
    const std::string_view stem = Without(word, suffix.size());
    if (HasVowel(stem)) return Restore(stem);
  }
  return std::string(word);
}

// NLTK: only after a consonant, of a stem of more than one letter.
std::string Step1c(std::string word) {
  const size_t size = word.size();
  if (size > 2 && word.back() == 'y' && IsConsonant(word, size - 2)) word.back() = 'i';
  return word;
}

constexpr Suffix kStep2[] = {
    {"ational", "ate"}, {"tional", "tion"}, {"enci", "ence"}, {"anci", "ance"}, {"izer", "ize"},
    {"bli", "ble"},     {"alli", "al"},     {"entli", "ent"}, {"eli", "e"},     {"ousli", "ous"},
    {"ization", "ize"}, {"ation", "ate"},   {"ator", "ate"},  {"alism", "al"},  {"iveness", "ive"},
    {"fulness", "ful"}, {"ousness", "ous"}, {"aliti", "al"},  {"iviti", "ive"}, {"biliti", "ble"},
    {"fulli", "ful"}};

std::string Step2(std::string word) {
  // NLTK: first, and then all over again; and the l of "logi" counts to the stem.
  while (Ends(word, "alli") && Measure(Without(word, 4)) > 0) word.resize(word.size() - 2);
  if (Ends(word, "logi"))
    return std::string(Measure(Without(word, 3)) > 0 ? Without(word, 1) : std::string_view(word));
  return ReplaceSuffix(word, kStep2, 0);
}

constexpr Suffix kStep3[] = {{"icate", "ic"}, {"ative", ""}, {"alize", "al"}, {"iciti", "ic"},
                             {"ical", "ic"},  {"ful", ""},   {"ness", ""}};

constexpr Suffix kStep4[] = {{"al", ""},   {"ance", ""}, {"ence", ""}, {"er", ""},    {"ic", ""},
                             {"able", ""}, {"ible", ""}, {"ant", ""},  {"ement", ""}, {"ment", ""},
                             {"ent", ""},  {"ou", ""},   {"ism", ""},  {"ate", ""},   {"iti", ""},
                             {"ous", ""},  {"ive", ""},  {"ize", ""}};

std::string Step4(std::string_view word) {
  if (!Ends(word, "ion")) return ReplaceSuffix(word, kStep4, 1);
  const std::string_view stem = Without(word, 3);
  const bool goes = Measure(stem) > 1 && (stem.back() == 's' || stem.back() == 't');
  return std::string(goes ? stem : word);
}

// A last e, and the second of two l.
std::string Step5(std::string word) {
  if (Ends(word, "e")) {
    const std::string_view stem = Without(word, 1);
    const int measure = Measure(stem);
    if (measure > 1 || (measure == 1 && !EndsShort(stem))) word.pop_back();
  }
  if (Ends(word, "ll") && Measure(Without(word, 1)) > 1) word.pop_back();
  return word;
}

// NLTK's exceptions.
constexpr Suffix kIrregular[] = {
    {"sky", "sky"},        {"skies", "sky"},       {"dying", "die"},        {"lying", "lie"},
    {"tying", "tie"},      {"news", "news"},       {"innings", "inning"},   {"inning", "inning"},
    {"outings", "outing"}, {"outing", "outing"},   {"cannings", "canning"}, {"canning", "canning"},
    {"howe", "howe"},      {"proceed", "proceed"}, {"exceed", "exceed"},    {"succeed", "succeed"}};

}  // namespace

std::string PorterStem(std::string_view word) {
  for (const Suffix& irregular : kIrregular) {
    if (word == irregular.from) return std::string(irregular.to);
  }
  if (word.size() <= 2) return std::string(word);
  std::string stem = Step2(Step1c(Step1b(Step1a(word))));
  return Step5(Step4(ReplaceSuffix(stem, kStep3, 0)));
}

}  // namespace hypermoe
