#include "runtime/svg_canvas.h"

#include <array>
#include <charconv>
#include <cmath>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/utf8.h"

namespace hypermoe {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";

// U+FFFE and U+FFFF are UTF-8, but no characters of XML.
bool IsNoCharacter(std::string_view text) {
  return text.substr(0, 3) == "\xEF\xBF\xBE" || text.substr(0, 3) == "\xEF\xBF\xBF";
}

void AppendEscaped(char c, std::string* escaped) {
  switch (c) {
    case '&':
      *escaped += "&amp;";
      break;
    case '<':
      *escaped += "&lt;";
      break;
    case '>':
      *escaped += "&gt;";
      break;
    case '"':
      *escaped += "&quot;";
      break;
    default:
      const auto code = static_cast<unsigned char>(c);
      const bool allowed = code >= 0x20 || c == '\t' || c == '\n';
      *escaped += allowed ? std::string(1, c) : kReplacement;
  }
}

std::string PointList(const std::vector<SvgPoint>& points) {
  std::string list;
  for (const auto& [x, y] : points)
    absl::StrAppend(&list, list.empty() ? "" : " ", SvgNumber(x), ",", SvgNumber(y));
  return list;
}

std::string Tip(const std::string& tip) {
  return tip.empty() ? "" : absl::StrCat("<title>", EscapeMarkup(tip), "</title>");
}

const char* NameOf(SvgAnchor anchor) {
  return anchor == SvgAnchor::kStart ? "start" : anchor == SvgAnchor::kMiddle ? "middle" : "end";
}

}  // namespace

std::string EscapeMarkup(const std::string& text) {
  std::string escaped;
  std::string_view rest = text;
  while (!rest.empty()) {
    std::string_view good = rest.substr(0, ValidUtf8Prefix(rest));
    rest.remove_prefix(good.size());
    while (!good.empty()) {
      const bool none = IsNoCharacter(good);
      if (none) {
        escaped += kReplacement;
      } else {
        AppendEscaped(good.front(), &escaped);
      }
      good.remove_prefix(none ? 3 : 1);
    }
    if (rest.empty()) break;
    escaped += kReplacement;
    rest.remove_prefix(1);
  }
  return escaped;
}

std::string SvgNumber(double value) {
  std::string text = absl::StrFormat("%.2f", value);
  return text == "-0.00" ? "0.00" : text;
}

std::string ShortNumber(double value) {
  return std::isfinite(value) ? absl::StrFormat("%.4g", value == 0 ? 0.0 : value) : "n/a";
}

std::string ExactNumber(double value) {
  if (!std::isfinite(value)) return "";
  std::array<char, 32> text;
  const auto end =
      std::to_chars(text.data(), text.data() + text.size(), value == 0 ? 0.0 : value).ptr;
  return {text.data(), end};
}

std::string SeriesColor(size_t index) {
  static constexpr std::array<const char*, 8> kColors = {
      "#4a8fd8", "#e08038", "#45a76b", "#c660a6", "#8f7ce4", "#b39a2c", "#38abb3", "#d85f5f"};
  return kColors[index % kColors.size()];
}

SvgCanvas::SvgCanvas(double width, double height, const std::string& label) {
  svg_ = absl::StrCat(R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 )", SvgNumber(width),
                      " ", SvgNumber(height), R"(" width=")", SvgNumber(width), R"(" height=")",
                      SvgNumber(height), R"(" role="img" aria-label=")", EscapeMarkup(label),
                      R"(" font-family="sans-serif" font-size="12" fill="currentColor">)", "\n");
}

void SvgCanvas::Element(const std::string& name, const SvgAttributes& own,
                        const SvgAttributes& more, const std::string& content) {
  absl::StrAppend(&svg_, "<", name);
  for (const SvgAttributes* attributes : {&own, &more}) {
    for (const auto& [key, value] : *attributes)
      absl::StrAppend(&svg_, " ", key, "=\"", EscapeMarkup(value), "\"");
  }
  if (content.empty()) {
    svg_ += "/>\n";
  } else {
    absl::StrAppend(&svg_, ">", content, "</", name, ">\n");
  }
}

void SvgCanvas::Line(SvgPoint from, SvgPoint to, const SvgAttributes& more) {
  Element("line",
          {{"x1", SvgNumber(from.first)},
           {"y1", SvgNumber(from.second)},
           {"x2", SvgNumber(to.first)},
           {"y2", SvgNumber(to.second)}},
          more);
}

void SvgCanvas::Rectangle(SvgPoint corner, double width, double height, const std::string& fill,
                          const std::string& tip, const SvgAttributes& more) {
  Element("rect",
          {{"x", SvgNumber(corner.first)},
           {"y", SvgNumber(corner.second)},
           {"width", SvgNumber(width)},
           {"height", SvgNumber(height)},
           {"fill", fill}},
          more, Tip(tip));
}

void SvgCanvas::Circle(SvgPoint center, double radius, const std::string& fill,
                       const std::string& tip, const SvgAttributes& more) {
  Element("circle",
          {{"cx", SvgNumber(center.first)},
           {"cy", SvgNumber(center.second)},
           {"r", SvgNumber(radius)},
           {"fill", fill}},
          more, Tip(tip));
}

void SvgCanvas::Polyline(const std::vector<SvgPoint>& points, const SvgAttributes& more) {
  Element("polyline", {{"points", PointList(points)}, {"fill", "none"}}, more);
}

void SvgCanvas::Polygon(const std::vector<SvgPoint>& points, const SvgAttributes& more) {
  Element("polygon", {{"points", PointList(points)}}, more);
}

void SvgCanvas::Text(SvgPoint at, SvgAnchor anchor, const std::string& text,
                     const SvgAttributes& more) {
  if (text.empty()) return;
  Element(
      "text",
      {{"x", SvgNumber(at.first)}, {"y", SvgNumber(at.second)}, {"text-anchor", NameOf(anchor)}},
      more, EscapeMarkup(text));
}

void SvgCanvas::VerticalText(SvgPoint at, const std::string& text) {
  Text(at, SvgAnchor::kMiddle, text,
       {{"transform",
         absl::StrCat("rotate(-90 ", SvgNumber(at.first), " ", SvgNumber(at.second), ")")}});
}

void SvgCanvas::BeginGroup(const SvgAttributes& attributes) {
  svg_ += "<g";
  for (const auto& [key, value] : attributes)
    absl::StrAppend(&svg_, " ", key, "=\"", EscapeMarkup(value), "\"");
  svg_ += ">\n";
}

}  // namespace hypermoe
