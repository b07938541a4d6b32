#include "c_client.h"

#include <math.h>
#include <poll.h>
#include <string.h>

#include "lamella/c.h"

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)
#define HOLDS(claim)                                              \
  do {                                                            \
    if (!(claim)) return __FILE__ ":" TEXT(__LINE__) ": " #claim; \
  } while (0)
#define TRY(call)                      \
  do {                                 \
    const char* const failed = (call); \
    if (failed != NULL) return failed; \
  } while (0)

enum { most_tokens = 256 };

typedef struct {
  int32_t tokens[most_tokens];
  size_t count;
  size_t prompt_logprobs;
  int32_t reason;
} said;

/* Hears a stream with one choice to its end, by waiting or with poll(). */
static const char* hear(lamella_stream* stream, int with_poll, said* all) {
  memset(all, 0, sizeof *all);
  while (!lamella_stream_finished(stream)) {
    lamella_news* news = NULL;
    if (with_poll) {
      struct pollfd polled = {-1, POLLIN, 0};
      HOLDS(lamella_stream_event_fd(stream, &polled.fd) == LAMELLA_OK);
      HOLDS(poll(&polled, 1, 60000) == 1);
    }
    HOLDS(lamella_stream_next(stream, with_poll ? 0.0 : INFINITY, &news) == LAMELLA_OK);
    for (size_t i = 0; i < lamella_news_count(news); ++i) {
      lamella_progress progress;
      progress.struct_size = sizeof progress;
      HOLDS(lamella_news_get(news, i, &progress) == LAMELLA_OK);
      HOLDS(progress.id == lamella_stream_id(stream));
      HOLDS(progress.choice == 0);
      HOLDS(progress.error == LAMELLA_OK && strcmp(progress.error_message, "") == 0);
      for (size_t t = 0; t < progress.token_count; ++t) {
        HOLDS(all->count < most_tokens);
        HOLDS(progress.times_s[t] >= 0.0);
        if (progress.logprobs != NULL) {
          HOLDS(progress.logprobs[t].count >= 3);
          HOLDS(progress.logprobs[t].entries[0].token == progress.tokens[t]);
          HOLDS(progress.logprobs[t].entries[0].rank == 1); /* greedy */
          HOLDS(progress.logprobs[t].entries[0].logprob <= 0.0F);
        }
        all->tokens[all->count++] = progress.tokens[t];
      }
      all->prompt_logprobs += progress.prompt_logprobs_count;
      all->reason = progress.reason;
    }
    lamella_news_free(news);
  }
  return NULL;
}

static const char* check_generation(lamella_engine* engine, lamella_token_ids prompt, lamella_token_ids expected) {
  lamella_sampling_params params;
  lamella_request requests[2];
  lamella_stream* streams[2] = {NULL, NULL};
  said all;
  lamella_sampling_params_init(&params, sizeof params);
  HOLDS(params.struct_size == sizeof params && params.max_tokens == 256 && params.n == 1 && params.logprobs == -1);
  params.max_tokens = (int64_t)expected.count;
  params.logprobs = 2;
  params.prompt_logprobs = 1;
  requests[0].prompt = requests[1].prompt = prompt;
  requests[0].sampling = requests[1].sampling = &params;
  HOLDS(lamella_submit(engine, requests, 2, streams) == LAMELLA_OK);
  for (int i = 0; i < 2; ++i) {
    TRY(hear(streams[i], i, &all));
    HOLDS(all.count == expected.count);
    HOLDS(memcmp(all.tokens, expected.ids, expected.count * sizeof *expected.ids) == 0);
    HOLDS(all.reason == LAMELLA_REASON_LENGTH);
    HOLDS(all.prompt_logprobs == prompt.count);
    lamella_stream_free(streams[i]);
  }

  /* Every list of the parameters: the first token that was expected is banned or ends the request. */
  {
    const lamella_token_ids first = {expected.ids, 1};
    const lamella_logit_bias bias = {expected.ids[0], -INFINITY};
    lamella_sampling_params_init(&params, sizeof params);
    params.max_tokens = 1;
    params.bad_words = &first;
    params.bad_words_count = 1;
    requests[0].sampling = &params;
    HOLDS(lamella_submit(engine, requests, 1, streams) == LAMELLA_OK);
    TRY(hear(streams[0], 0, &all));
    lamella_stream_free(streams[0]);
    HOLDS(all.count == 1 && all.tokens[0] != expected.ids[0]);

    params.bad_words_count = 0;
    params.logit_bias = &bias;
    params.logit_bias_count = 1;
    HOLDS(lamella_submit(engine, requests, 1, streams) == LAMELLA_OK);
    TRY(hear(streams[0], 0, &all));
    lamella_stream_free(streams[0]);
    HOLDS(all.count == 1 && all.tokens[0] != expected.ids[0]);

    params.logit_bias_count = 0;
    params.allowed_token_ids = first;
    params.max_tokens = 3;
    HOLDS(lamella_submit(engine, requests, 1, streams) == LAMELLA_OK);
    TRY(hear(streams[0], 0, &all));
    lamella_stream_free(streams[0]);
    HOLDS(all.count == 3 && all.tokens[2] == expected.ids[0]);

    params.stop_token_ids = first;
    HOLDS(lamella_submit(engine, requests, 1, streams) == LAMELLA_OK);
    TRY(hear(streams[0], 0, &all));
    lamella_stream_free(streams[0]);
    HOLDS(all.count == 0 && all.reason == LAMELLA_REASON_STOP);
  }
  return NULL;
}

static const char* check_ends(lamella_engine* engine, lamella_token_ids prompt) {
  lamella_sampling_params params;
  lamella_request request;
  lamella_stream *cancelled = NULL, *stopped = NULL;
  lamella_news* news = NULL;
  said all;
  lamella_sampling_params_init(&params, sizeof params);
  params.max_tokens = 60000;
  request.prompt = prompt;
  request.sampling = &params;
  HOLDS(lamella_submit(engine, &request, 1, &cancelled) == LAMELLA_OK);
  HOLDS(lamella_submit(engine, &request, 1, &stopped) == LAMELLA_OK);
  HOLDS(lamella_stream_id(cancelled) < lamella_stream_id(stopped));
  lamella_stream_cancel(cancelled);
  lamella_stream_stop(stopped, 0);
  TRY(hear(cancelled, 0, &all));
  HOLDS(all.reason == LAMELLA_REASON_CANCELLED);
  TRY(hear(stopped, 0, &all));
  HOLDS(all.reason == LAMELLA_REASON_STOP);
  HOLDS(lamella_stream_next(stopped, INFINITY, &news) == LAMELLA_OK); /* over: nothing to wait for */
  HOLDS(lamella_news_count(news) == 0);
  lamella_news_free(news);
  lamella_stream_free(cancelled);
  lamella_stream_free(stopped);
  return NULL;
}

static const char* check_errors(lamella_engine* engine, lamella_token_ids prompt) {
  const int32_t outside[1] = {1 << 30};
  lamella_engine* none = NULL;
  lamella_engine_options options;
  lamella_sampling_params params;
  lamella_request requests[2];
  lamella_stream* streams[2] = {NULL, NULL};
  lamella_statistics stats;
  HOLDS(lamella_engine_open("no/such/store", NULL, &none) == LAMELLA_IO_ERROR);
  HOLDS(none == NULL && strstr(lamella_last_error(), "no/such/store") != NULL);
  HOLDS(lamella_engine_open(NULL, NULL, &none) == LAMELLA_INVALID_ARGUMENT);
  HOLDS(strstr(lamella_last_error(), "store is NULL") != NULL);
  HOLDS(lamella_engine_open("x", NULL, NULL) == LAMELLA_INVALID_ARGUMENT);
  lamella_engine_options_init(&options, sizeof options);
  options.struct_size = 0;
  HOLDS(lamella_engine_open("x", &options, &none) == LAMELLA_INVALID_ARGUMENT);
  HOLDS(strstr(lamella_last_error(), "struct_size") != NULL);

  lamella_sampling_params_init(&params, sizeof params);
  requests[0].prompt = prompt;
  requests[0].sampling = NULL;
  requests[1].prompt.ids = outside;
  requests[1].prompt.count = 1;
  requests[1].sampling = &params;
  HOLDS(lamella_submit(engine, requests, 2, streams) == LAMELLA_INVALID_ARGUMENT);
  HOLDS(strstr(lamella_last_error(), "request 1: ") != NULL && streams[0] == NULL && streams[1] == NULL);
  requests[1].prompt.ids = NULL;
  HOLDS(lamella_submit(engine, requests, 2, streams) == LAMELLA_INVALID_ARGUMENT);
  HOLDS(strstr(lamella_last_error(), "request 1: prompt is NULL") != NULL);
  params.max_tokens = 1 << 17;
  requests[1].prompt = prompt;
  HOLDS(lamella_submit(engine, requests + 1, 1, streams) == LAMELLA_CONTEXT_TOO_LONG);
  HOLDS(lamella_submit(engine, NULL, 0, NULL) == LAMELLA_OK);
  HOLDS(lamella_submit(NULL, requests, 1, streams) == LAMELLA_INVALID_ARGUMENT);
  HOLDS(lamella_stream_next(NULL, 0.0, NULL) == LAMELLA_INVALID_ARGUMENT);
  HOLDS(lamella_engine_close(NULL) == LAMELLA_INVALID_ARGUMENT);
  memset(&stats, 0, sizeof stats);
  HOLDS(lamella_engine_statistics(engine, &stats) == LAMELLA_INVALID_ARGUMENT);
  HOLDS(strcmp(lamella_code_name(LAMELLA_OK), "OK") == 0);
  HOLDS(strcmp(lamella_code_name(LAMELLA_CONTEXT_TOO_LONG), "CONTEXT_TOO_LONG") == 0);
  HOLDS(strcmp(lamella_code_name(-7), "UNKNOWN") == 0);

  /* What may be NULL. */
  lamella_engine_free(NULL);
  lamella_stream_free(NULL);
  lamella_news_free(NULL);
  lamella_stream_cancel(NULL);
  lamella_stream_stop(NULL, 0);
  HOLDS(lamella_stream_finished(NULL) == 1 && lamella_news_count(NULL) == 0 && lamella_stream_id(NULL) == 0);
  HOLDS(lamella_engine_vocabulary(NULL) == 0 && lamella_engine_max_model_len(NULL) == 0);
  return NULL;
}

const char* use_c_interface(const char* store, const int32_t* prompt, size_t prompt_count, const int32_t* expected,
                            size_t expected_count) {
  const lamella_token_ids given = {prompt, prompt_count}, wanted = {expected, expected_count};
  lamella_engine_options options;
  lamella_engine* engine = NULL;
  lamella_statistics stats;
  lamella_request request;
  lamella_stream* stream = NULL;
  said all;
  HOLDS(lamella_abi_version() == LAMELLA_ABI_VERSION);
  lamella_engine_options_init(&options, sizeof options);
  HOLDS(options.max_num_seqs == 32 && options.prefix_caching == 1 && options.dtype == LAMELLA_DTYPE_AUTO);
  options.threads = 2;
  options.max_num_seqs = 2;
  options.kv_cache_memory = 1 << 26;
  HOLDS(lamella_engine_open(store, &options, &engine) == LAMELLA_OK);
  HOLDS(lamella_engine_vocabulary(engine) == 101);
  HOLDS(lamella_engine_max_model_len(engine) == 1 << 16);
  TRY(check_generation(engine, given, wanted));
  TRY(check_ends(engine, given));
  TRY(check_errors(engine, given));

  stats.struct_size = sizeof stats;
  HOLDS(lamella_engine_statistics(engine, &stats) == LAMELLA_OK);
  HOLDS(stats.struct_size == sizeof stats && stats.finished == 7 && stats.cancelled == 1 && stats.failed == 0);
  HOLDS(stats.received == stats.running + stats.finished + stats.cancelled + stats.rejected + stats.failed);
  HOLDS(stats.kv_blocks_used == 0 && stats.kv_blocks_total > 0 && stats.bytes_weights > 0 && stats.steps > 0);

  /* A stream outlives its engine. */
  request.prompt = given;
  request.sampling = NULL;
  HOLDS(lamella_submit(engine, &request, 1, &stream) == LAMELLA_OK);
  HOLDS(lamella_engine_close(engine) == LAMELLA_OK);
  HOLDS(lamella_engine_close(engine) == LAMELLA_OK);
  lamella_engine_free(engine);
  TRY(hear(stream, 0, &all));
  HOLDS(all.reason == LAMELLA_REASON_CANCELLED || all.reason == LAMELLA_REASON_LENGTH);
  lamella_stream_free(stream);
  return NULL;
}
