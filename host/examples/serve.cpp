// A server: POST /v1/predict {"inputs": ["a text"], "tasks": ["sentiment"]}, answered as `bitheads
// serve` does. Requests that are there at the same time share encoder batches.
#include <httplib.h>

#include <algorithm>
#include <bitheads/bitheads.hpp>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <thread>

namespace {

using bitheads::Status;
using nlohmann::json;

constexpr size_t kMaxBodyBytes = 8 << 20;
constexpr size_t kConnections = 64;  // at a time, a thread each; more wait to be accepted

// As many digits as the Python server gives.
double rounded(float probability) {
  return std::round(static_cast<double>(probability) * 1e6) / 1e6;
}

void refuse(httplib::Response &response, int status, const char *code, const std::string &message) {
  const json error = {{"error", {{"code", code}, {"message", message}}}};
  response.status = status;
  response.set_content(error.dump(-1, ' ', false, json::error_handler_t::replace),
                       "application/json");
}

void refuse(httplib::Response &response, const bitheads::Error &error) {
  switch (error.status()) {
    case Status::invalid_input:
      return refuse(response, 400, "bad_request", error.what());
    case Status::unknown_task:
      return refuse(response, 404, "unknown_task", error.what());
    case Status::queue_full:
      response.set_header("Retry-After", "1");
      return refuse(response, 429, "queue_full", error.what());
    default:
      return refuse(response, 500, "engine_failed", error.what());
  }
}

bitheads::Text text_of(const json &item) {
  if (item.is_string()) return item.get<std::string>();
  const auto pair = item.get<std::vector<std::string>>();
  if (pair.size() != 2) throw std::invalid_argument("inputs: expected texts, or pairs of texts");
  return {pair[0], pair[1]};
}

// What there is of a text's answer depends on the kind of the head. `likely` are the text's row.
json answer_of(const bitheads::Prediction &prediction, const float *likely, size_t text) {
  json answer = json::object();
  if (const auto best = prediction.best(text)) {
    answer["label"] = prediction.labels[*best];
    answer["probability"] = rounded(likely[*best]);
  }
  if (prediction.kind == "multi_label") {
    answer["labels"] = prediction.selected(text);
    answer["probabilities"] = json::object();
    for (size_t i = 0; i < prediction.labels.size(); ++i) {
      const bool has = std::count(answer["labels"].begin(), answer["labels"].end(),
                                  json(prediction.labels[i])) > 0;
      if (has) answer["probabilities"][prediction.labels[i]] = rounded(likely[i]);
    }
  }
  if (const auto value = prediction.value(text)) answer["value"] = *value;
  if (prediction.kind == "token_label") answer["spans"] = json::array();
  for (const bitheads::Span &span : prediction.spans(text)) {
    answer["spans"].push_back({{"start", span.start},
                               {"end", span.end},
                               {"label", prediction.labels[span.label]},
                               {"probability", rounded(span.probability)}});
  }
  if (const auto at = prediction.truncated_at(text)) answer["truncated_at"] = *at;
  if (prediction.decision.can_refuse()) answer["accepted"] = prediction.accepted(text);
  if (const auto out = prediction.out_of_domain(text)) answer["out_of_domain"] = rounded(*out);
  return answer;
}

json predict(const bitheads::Engine &engine, const json &asked) {
  const json &inputs = asked.at("inputs");
  std::vector<bitheads::Text> texts;
  if (inputs.is_string()) {
    texts.push_back(text_of(inputs));
  } else {
    for (const json &item : inputs.get<std::vector<json>>()) texts.push_back(text_of(item));
  }
  const auto tasks = asked.value("tasks", std::vector<std::string>());
  json answers = std::vector<json>(texts.size(), json::object());
  for (const bitheads::Prediction &prediction : engine.predict(texts, tasks)) {
    const std::vector<float> probabilities = prediction.probabilities();
    const size_t labels = prediction.words ? 0 : prediction.labels.size();
    for (size_t i = 0; i < texts.size(); ++i) {
      answers[i][prediction.task] = answer_of(prediction, probabilities.data() + i * labels, i);
    }
  }
  return {{"predictions", answers}, {"spec_id", engine.spec_id()}};
}

void serve(const char *bundle, int port, const char *precision) {
  sigset_t signals;  // for one thread to wait for: what begins later inherits that they are blocked
  sigemptyset(&signals);
  for (const int number : {SIGTERM, SIGINT}) sigaddset(&signals, number);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  bitheads::Options options;
  options.share_batches = true;
  options.precision = precision;
  const bitheads::Engine engine = bitheads::Engine::load(bundle, options);

  httplib::Server server;
  server.new_task_queue = [] { return new httplib::ThreadPool(kConnections); };
  server.set_payload_max_length(kMaxBodyBytes);
  server.set_keep_alive_max_count(1000);
  server.set_tcp_nodelay(true);
  int listening = -1;
  server.set_socket_options([&](int socket) {  // the default lets two servers have one port
    const int yes = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    listening = socket;
  });
  server.set_pre_routing_handler([](const auto &request, auto &response) {
    if (!request.has_header("Content-Encoding")) return httplib::Server::HandlerResponse::Unhandled;
    refuse(response, 415, "bad_request", "Content-Encoding: expected none. Send it as it is.");
    return httplib::Server::HandlerResponse::Handled;  // how large it would be nobody knows
  });
  server.set_error_handler([](const auto &, auto &response) {
    if (!response.body.empty()) return;
    const bool is_large = response.status == 413;
    refuse(response, response.status, is_large ? "too_large" : "bad_request",
           is_large ? "body: expected at most 8 MiB. Send fewer texts." : "Ask POST /v1/predict.");
  });
  server.Post("/v1/predict", [&](const auto &request, auto &response) {
    try {
      const json answer = predict(engine, json::parse(request.body));
      response.set_content(answer.dump(), "application/json");
    } catch (const bitheads::Error &error) {
      refuse(response, error);
    } catch (const std::bad_alloc &) {
      refuse(response, 500, "internal", "no memory");
    } catch (const std::exception &error) {  // of what was asked
      refuse(response, 400, "bad_request", error.what());
    }
  });

  const char *const host = "127.0.0.1";
  if (port == 0) {
    port = server.bind_to_any_port(host);
  } else if (!server.bind_to_port(host, port)) {
    port = -1;
  }
  if (port < 0) throw std::runtime_error("the port cannot be had: is it in use?");
  listen(listening, SOMAXCONN);  // the library's own backlog is 5 connections
  std::printf("listening on http://%s:%d\n", host, port);
  std::fflush(stdout);
  std::thread stopper([&] {
    int number = 0;
    sigwait(&signals, &number);
    while (!server.is_running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    server.stop();  // requests that run are answered
  });
  server.listen_after_bind();
  stopper.join();
}

}  // namespace

int main(int argc, char **argv) {
  if (argc < 2 || argc > 4) {
    std::fprintf(stderr, "usage: serve BUNDLE [PORT [PRECISION]]\n");
    return 2;
  }
  try {
    serve(argv[1], argc > 2 ? std::atoi(argv[2]) : 8000, argc > 3 ? argv[3] : "auto");
    return 0;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
