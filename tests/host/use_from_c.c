/* The C header in C99: text in, an answer out, and an error that is told apart.
   Usage: use_from_c BUNDLE TASK */
#include <bitheads/bitheads.h>
#include <stdio.h>
#include <string.h>

static int check(bitheads_status status) {
  if (status != BITHEADS_OK) {
    fprintf(stderr, "status %d: %s\n", (int)status, bitheads_last_error());
  }
  return status != BITHEADS_OK;
}

int main(int argc, char **argv) {
  const char *tasks[1];
  bitheads_options options;
  bitheads_text text = {"The tide was out.", 17, NULL, 0};
  bitheads_engine *engine = NULL;
  bitheads_features *features = NULL;
  bitheads_predictions *predictions = NULL;
  memset(&options, 0, sizeof options);
  options.precision = "fp32";
  if (argc < 3) {
    return fprintf(stderr, "usage: %s BUNDLE TASK\n", argv[0]), 1;
  }
  tasks[0] = argv[2];
  if (check(bitheads_engine_load(argv[1], &options, &engine))) {
    return 1;
  }
  if (check(bitheads_encode(engine, &text, 1, &features)) ||
      check(bitheads_predict_features(engine, features, tasks, 1, &predictions))) {
    return 1;
  }
  printf("%s %s\n", bitheads_engine_spec_id(engine), bitheads_engine_backend(engine));
  printf("%s %s %.9g\n", bitheads_predictions_task(predictions, 0),
         bitheads_predictions_label(predictions, 0, 1),
         (double)bitheads_predictions_logits(predictions, 0)[1]);
  bitheads_predictions_free(predictions);
  bitheads_features_free(features);
  predictions = NULL;
  tasks[0] = "nothing";
  if (bitheads_predict(engine, &text, 1, tasks, 1, &predictions) != BITHEADS_UNKNOWN_TASK ||
      predictions != NULL || strstr(bitheads_last_error(), "'nothing'") == NULL ||
      bitheads_encode(engine, NULL, 1, &features) != BITHEADS_INVALID_INPUT ||
      bitheads_engine_load(NULL, NULL, NULL) != BITHEADS_INVALID_INPUT) {
    return 2;
  }
  bitheads_engine_free(engine);
  bitheads_engine_free(NULL);
  return 0;
}
