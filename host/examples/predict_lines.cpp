// Lines in, predictions out: one JSON object per text, as `bitheads predict --json` writes them.
#include <algorithm>
#include <bitheads/bitheads.hpp>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <map>

namespace {

const char *const usage =
    "usage: predict_lines BUNDLE [--tasks TASK,TASK] [--precision auto|fp32|bf16|int8]\n"
    "                     [--threads N] < texts\n"
    "Reads UTF-8 texts, one per line, text_a<TAB>text_b for pairs; a head answers the texts of "
    "its\n"
    "form. Prints {\"text\": ..., \"tasks\": {task: {\"label\": ..., \"probability\": ...}}}; a "
    "head\n"
    "of another kind has \"labels\", a \"value\" or \"spans\", one that can refuse says "
    "\"accepted\".\n";

constexpr const char *kByteOrderMark = "\xEF\xBB\xBF";  // at the start of files from Windows
constexpr size_t kChunkTexts = 4096;                    // read, answered and printed together

struct Arguments {
  std::string bundle;
  std::vector<std::string> tasks;
  bitheads::Options options;
};

std::vector<std::string> split(const std::string &text, char at) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == at) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

int whole_number(const std::string &name, const std::string &value) {
  int number = 0;
  const char *end = value.data() + value.size();
  const auto read = std::from_chars(value.data(), end, number);
  if (read.ec != std::errc() || read.ptr != end) {
    throw std::invalid_argument(name + ": got '" + value + "', expected a whole number");
  }
  return number;
}

Arguments parse(int argc, char **argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const bool is_option = name.rfind("--", 0) == 0;
    if (is_option && i + 1 == argc) throw std::invalid_argument(name + " wants a value");
    if (name == "--tasks") {
      arguments.tasks = split(argv[++i], ',');
    } else if (name == "--precision") {
      arguments.options.precision = argv[++i];
    } else if (name == "--threads") {
      arguments.options.threads = whole_number(name, argv[++i]);
    } else if (is_option || !arguments.bundle.empty()) {
      throw std::invalid_argument("unknown argument " + name);
    } else {
      arguments.bundle = name;
    }
  }
  if (arguments.bundle.empty()) throw std::invalid_argument("no bundle named");
  return arguments;
}

std::string quoted(const std::string &text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(c));
      out += escaped;
    } else {
      out += c;
    }
  }
  return out + '"';
}

// Not printf: in a program that has set a locale it may write a decimal comma.
std::string six_decimals(float value) {
  char shown[32];
  const auto end = std::to_chars(shown, shown + sizeof shown, static_cast<double>(value),
                                 std::chars_format::fixed, 6);
  return std::string(shown, end.ptr);
}

// In as few digits as say which float it is.
std::string all_digits(float value) {
  char shown[32];
  return std::string(shown, std::to_chars(shown, shown + sizeof shown, value).ptr);
}

std::string joined(const std::vector<std::string> &parts) {
  std::string all;
  for (const std::string &part : parts) all += (all.empty() ? "" : ", ") + part;
  return all;
}

// Places are in code points, as bitheads predict has them.
std::string spans_of(const bitheads::Prediction &prediction, size_t text) {
  std::vector<std::string> spans;
  for (const bitheads::Span &span : prediction.spans(text)) {
    spans.push_back("{\"start\": " + std::to_string(span.start) +
                    ", \"end\": " + std::to_string(span.end) +
                    ", \"label\": " + quoted(prediction.labels[span.label]) +
                    ", \"probability\": " + six_decimals(span.probability) + "}");
  }
  return "[" + joined(spans) + "]";
}

// What there is of a text's answer, which depends on the kind of the head. `probabilities` are
// those of all texts.
std::string answer_of(const bitheads::Prediction &prediction,
                      const std::vector<float> &probabilities, size_t text) {
  std::vector<std::string> parts;
  if (prediction.kind == "token_label") {
    parts.push_back("\"spans\": " + spans_of(prediction, text));
    if (const auto at = prediction.truncated_at(text)) {
      parts.push_back("\"truncated_at\": " + std::to_string(*at));
    }
    return "{" + joined(parts) + "}";
  }
  const float *likely = probabilities.data() + text * prediction.labels.size();
  if (const auto best = prediction.best(text)) {
    parts.push_back("\"label\": " + quoted(prediction.labels[*best]));
    parts.push_back("\"probability\": " + six_decimals(likely[*best]));
  }
  if (prediction.kind == "multi_label") {
    std::vector<std::string> labels;
    for (const std::string &label : prediction.selected(text)) labels.push_back(quoted(label));
    parts.push_back("\"labels\": [" + joined(labels) + "]");
  }
  if (const auto value = prediction.value(text)) {
    parts.push_back("\"value\": " + all_digits(*value));
  }
  if (prediction.decision.can_refuse()) {
    parts.push_back(std::string("\"accepted\": ") + (prediction.accepted(text) ? "true" : "false"));
  }
  if (const auto out = prediction.out_of_domain(text)) {
    parts.push_back("\"out_of_domain\": " + six_decimals(*out));
  }
  if (prediction.kind == "multi_label") {
    std::vector<std::string> shown;
    for (const std::string &label : prediction.selected(text)) {
      const auto &labels = prediction.labels;
      const auto place = std::find(labels.begin(), labels.end(), label) - labels.begin();
      shown.push_back(quoted(label) + ": " + six_decimals(likely[place]));
    }
    parts.push_back("\"probabilities\": {" + joined(shown) + "}");
  }
  return "{" + joined(parts) + "}";
}

// A text, and the number of its line in the input, from 1.
struct Line {
  size_t number;
  bitheads::Text text;
};

// Messages number the texts of a call; people want the number of the line instead.
std::string with_line(const std::string &message, const std::vector<size_t> &numbers) {
  const std::string prefix = "text ";
  size_t index = 0;
  const char *end = message.data() + message.size();
  if (message.rfind(prefix, 0) != 0) return message;
  const auto read = std::from_chars(message.data() + prefix.size(), end, index);
  if (read.ec != std::errc() || index >= numbers.size()) return message;
  return "line " + std::to_string(numbers[index]) + std::string(read.ptr, end);
}

// Shows each text's answers; texts of one form are asked of the heads of that form.
void answer(const bitheads::Engine &engine, const std::vector<Line> &lines,
            const std::vector<std::string> &tasks, bool pairs, std::vector<std::string> &shown) {
  std::vector<bitheads::Text> asked;
  std::vector<size_t> places;
  std::vector<size_t> numbers;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].text.is_pair == pairs) {
      asked.push_back(lines[i].text);
      places.push_back(i);
      numbers.push_back(lines[i].number);
    }
  }
  if (asked.empty() || tasks.empty()) return;
  std::vector<bitheads::Prediction> predictions;
  try {
    predictions = engine.predict(asked, tasks);
  } catch (const bitheads::Error &error) {
    throw bitheads::Error(error.status(), with_line(error.what(), numbers));
  }
  for (const bitheads::Prediction &prediction : predictions) {
    const std::vector<float> probabilities = prediction.probabilities();
    for (size_t row = 0; row < asked.size(); ++row) {
      std::string &out = shown[places[row]];
      out += (out.empty() ? "" : ", ") + quoted(prediction.task) + ": " +
             answer_of(prediction, probabilities, row);
    }
  }
}

void answer_chunk(const bitheads::Engine &engine, const std::vector<Line> &lines,
                  const std::map<bool, std::vector<std::string>> &tasks) {
  std::vector<std::string> shown(lines.size());
  for (const auto &[pairs, names] : tasks) answer(engine, lines, names, pairs, shown);
  for (size_t i = 0; i < lines.size(); ++i) {
    const bitheads::Text &text = lines[i].text;
    const std::string quotation = text.is_pair
                                      ? "[" + quoted(text.first) + ", " + quoted(text.second) + "]"
                                      : quoted(text.first);
    std::cout << "{\"text\": " << quotation << ", \"tasks\": {" << shown[i] << "}}\n";
  }
}

void run(const Arguments &arguments) {
  const bitheads::Engine engine = bitheads::Engine::load(arguments.bundle, arguments.options);
  std::map<bool, std::vector<std::string>> tasks;  // by whether they read pairs
  std::vector<std::string> wanted = arguments.tasks;
  for (const bitheads::TaskInfo &info : engine.tasks()) {
    const auto found = std::find(wanted.begin(), wanted.end(), info.task);
    if (arguments.tasks.empty() || found != wanted.end()) tasks[info.is_pair].push_back(info.task);
    if (found != wanted.end()) wanted.erase(found);
  }
  if (!wanted.empty()) throw std::invalid_argument("no head answers the task " + wanted[0]);
  std::vector<Line> lines;
  size_t number = 0;
  for (std::string line; std::getline(std::cin, line);) {
    number += 1;
    if (number == 1 && line.rfind(kByteOrderMark, 0) == 0) {
      line.erase(0, std::strlen(kByteOrderMark));
    }
    if (!line.empty() && line.back() == '\r') line.pop_back();
    const size_t tab = line.find('\t');
    if (line.find_first_not_of(" \t") == std::string::npos) continue;
    if (tab != std::string::npos && tab + 1 < line.size()) {
      lines.push_back({number, bitheads::Text(line.substr(0, tab), line.substr(tab + 1))});
    } else {
      lines.push_back({number, bitheads::Text(line.substr(0, tab))});
    }
    if (lines.size() == kChunkTexts) {
      answer_chunk(engine, lines, tasks);
      lines.clear();
    }
  }
  answer_chunk(engine, lines, tasks);
  if (!std::cout.flush()) {
    throw std::runtime_error("the answers could not be written: is the disk full?");
  }
}

}  // namespace

int main(int argc, char **argv) {
  try {
    run(parse(argc, argv));
    return 0;
  } catch (const std::invalid_argument &error) {
    std::cerr << "error: " << error.what() << "\n" << usage;
    return 2;
  } catch (const std::exception &error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
