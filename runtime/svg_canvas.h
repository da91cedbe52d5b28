// The elements of an SVG picture. What is written is well-formed XML, whatever the texts hold, and
// the same bytes for the same calls. It draws in the colour of the page around it (currentColor),
// so that it can stand in an HTML page, light or dark, and by itself.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace hypermoe {

using SvgPoint = std::pair<double, double>;
// Further attributes of an element, written in this order.
using SvgAttributes = std::vector<std::pair<std::string, std::string>>;

enum class SvgAnchor { kStart, kMiddle, kEnd };

class SvgCanvas {
 public:
  // `label`: what the picture shows, for who cannot see it.
  SvgCanvas(double width, double height, const std::string& label);

  // `tip`, of any shape, is shown when a pointer rests on it; "": none.
  void Line(SvgPoint from, SvgPoint to, const SvgAttributes& more = {});
  void Rectangle(SvgPoint corner, double width, double height, const std::string& fill,
                 const std::string& tip = "", const SvgAttributes& more = {});
  void Circle(SvgPoint center, double radius, const std::string& fill, const std::string& tip = "",
              const SvgAttributes& more = {});
  void Polyline(const std::vector<SvgPoint>& points, const SvgAttributes& more = {});
  void Polygon(const std::vector<SvgPoint>& points, const SvgAttributes& more = {});
  void Text(SvgPoint at, SvgAnchor anchor, const std::string& text, const SvgAttributes& more = {});
  // Reads from bottom to top.
  void VerticalText(SvgPoint at, const std::string& text);
  // What follows belongs together, up to EndGroup.
  void BeginGroup(const SvgAttributes& attributes);
  void EndGroup() { svg_ += "</g>\n"; }

  // The whole picture.
  std::string Finish() const { return svg_ + "</svg>\n"; }

 private:
  void Element(const std::string& name, const SvgAttributes& own, const SvgAttributes& more,
               const std::string& content = "");

  std::string svg_;
};

// `text` for XML and HTML, in content and in attributes: markup escaped; characters that XML does
// not allow, and bytes that are not UTF-8, as U+FFFD.
std::string EscapeMarkup(const std::string& text);

// A coordinate: two decimals.
std::string SvgNumber(double value);

// A value for people: four digits, "n/a" if it is not finite.
std::string ShortNumber(double value);

// A value that reads back exactly; empty if it is not finite, which CSV has no word for.
std::string ExactNumber(double value);

// The i-th of the colours that tell series apart; readable on white and on black.
std::string SeriesColor(size_t index);

}  // namespace hypermoe
