/* The engine for C, and for whatever calls C: a thin layer over lamella/engine.h.
 *
 * Errors. A function that can fail returns a lamella_code: LAMELLA_OK, or what went wrong, whose message
 * lamella_last_error() has. What it would have put out is NULL or untouched then. Null pointers where no null is
 * allowed are LAMELLA_INVALID_ARGUMENT. Nothing is thrown, no signal handler is installed and the process is never
 * ended.
 *
 * Versions. Constants keep their values and functions their meaning as long as LAMELLA_ABI_VERSION is the same. Structs
 * that a caller fills, or has filled, begin with struct_size, sizeof as the caller was compiled: they grow at the end,
 * and a library reads and writes what both sides know. Fields that only the caller knows must be 0, so that no wish is
 * lost unheard. The _init functions set struct_size, and the defaults of lamella/engine.h.
 *
 * Threads. Engines and streams may be used from any threads at once, but for freeing them, which must come last.
 */
#ifndef LAMELLA_C_H
#define LAMELLA_C_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LAMELLA_ABI_VERSION 1u

/* The version that the library was compiled with: compare it with LAMELLA_ABI_VERSION before anything else. */
uint32_t lamella_abi_version(void);

/* ---- errors ---- */

/* What went wrong; lamella/error.h explains each. Codes that a caller does not know are errors as well. */
typedef int32_t lamella_code;
enum {
  LAMELLA_OK = 0,
  LAMELLA_INTERNAL = 1,
  LAMELLA_INVALID_CHECKPOINT = 2,
  LAMELLA_UNSUPPORTED_MODEL = 3,
  LAMELLA_CHECKPOINT_CHANGED = 4,
  LAMELLA_INVALID_ARGUMENT = 5,
  LAMELLA_CONTEXT_TOO_LONG = 6,
  LAMELLA_OUT_OF_MEMORY = 7,
  LAMELLA_IO_ERROR = 8,
  LAMELLA_OVERLOADED = 9,
  LAMELLA_CANCELLED = 10,
  LAMELLA_DEADLINE = 11,
  LAMELLA_NUMERIC = 12,
  LAMELLA_ENGINE_DEAD = 13,
  LAMELLA_CHAT_TEMPLATE = 14,
  LAMELLA_RANK_FAILED = 15
};

/* "INVALID_ARGUMENT", "OK"; "UNKNOWN" for other numbers. Static. */
const char* lamella_code_name(lamella_code code);

/* The message of this thread's last call that failed, "" before there was one. It stays the library's and is good until
 * the next call that fails on this thread. */
const char* lamella_last_error(void);

/* ---- the engine ---- */

typedef struct lamella_engine lamella_engine;

/* Element types, and "as the store has it". */
enum {
  LAMELLA_DTYPE_AUTO = 0,
  LAMELLA_DTYPE_F32 = 1,
  LAMELLA_DTYPE_F16 = 2,
  LAMELLA_DTYPE_BF16 = 3,
  LAMELLA_DTYPE_I8 = 4 /* of the KV cache only */
};

/* lamella::EngineOptions, whose comments have units, ranges and defaults. */
typedef struct lamella_engine_options {
  size_t struct_size;
  int32_t threads;
  int32_t dtype; /* LAMELLA_DTYPE_, not I8 */
  int64_t max_num_seqs;
  int64_t max_model_len;
  int64_t max_num_batched_tokens;
  uint64_t memory_budget;   /* bytes; 0: what the machine has free */
  uint64_t kv_cache_memory; /* bytes; 0: what fits */
  int32_t prefix_caching;   /* 0 or 1 */
  int32_t kv_cache_dtype;   /* LAMELLA_DTYPE_; AUTO: as the dtype */
  int32_t tensor_parallel_size, pipeline_parallel_size;
} lamella_engine_options;

/* Writes the defaults. `struct_size` is the caller's sizeof(lamella_engine_options). */
void lamella_engine_options_init(lamella_engine_options* options, size_t struct_size);

/* Opens a packed store, a file or the folder that holds it; `options` may be NULL for the defaults. The engine that it
 * puts out is the caller's, to be freed. Errors: those of lamella::Engine::open(). */
lamella_code lamella_engine_open(const char* store, const lamella_engine_options* options, lamella_engine** engine);

/* Cancels every request, refuses new ones and ends the engine's threads; streams and statistics go on to answer. A
 * second call does nothing. */
lamella_code lamella_engine_close(lamella_engine* engine);

/* Closes and frees. Streams may outlive the engine; they see their requests cancelled. NULL is ignored. */
void lamella_engine_free(lamella_engine* engine);

/* Token ids lie in [0, vocabulary). 0 for NULL. */
int64_t lamella_engine_vocabulary(const lamella_engine* engine);

/* Tokens of prompt and result together. 0 for NULL. */
int64_t lamella_engine_max_model_len(const lamella_engine* engine);

/* lamella::Statistics, whose comments say what each figure is. */
typedef struct lamella_statistics {
  size_t struct_size;
  int64_t received, running, finished, cancelled, rejected, failed;
  int64_t kv_blocks_total, kv_blocks_used, kv_blocks_kept;
  int64_t steps, preemptions, reused_tokens;
  double step_s, executor_s;
  uint64_t bytes_weights, bytes_kv, bytes_activations;
} lamella_statistics;

/* Fills `statistics`, whose struct_size the caller has set. */
lamella_code lamella_engine_statistics(const lamella_engine* engine, lamella_statistics* statistics);

/* ---- requests ---- */

typedef struct lamella_logit_bias {
  int32_t token;
  float bias;
} lamella_logit_bias;

typedef struct lamella_token_ids {
  const int32_t* ids;
  size_t count;
} lamella_token_ids;

/* lamella::SamplingParams, whose comments have ranges and defaults. Lists are read during the call that takes the
 * struct. */
typedef struct lamella_sampling_params {
  size_t struct_size;
  int64_t max_tokens;
  int64_t min_tokens;
  double temperature;
  double top_p;
  double min_p;
  int32_t top_k;
  int32_t n;
  double repetition_penalty;
  double presence_penalty;
  double frequency_penalty;
  int64_t no_repeat_ngram_size;
  uint64_t seed;
  int32_t logprobs;        /* -1: none */
  int32_t prompt_logprobs; /* -1: none */
  lamella_token_ids stop_token_ids;
  lamella_token_ids allowed_token_ids;
  const lamella_token_ids* bad_words;
  size_t bad_words_count;
  const lamella_logit_bias* logit_bias;
  size_t logit_bias_count;
} lamella_sampling_params;

/* Writes the defaults. `struct_size` is the caller's sizeof(lamella_sampling_params). */
void lamella_sampling_params_init(lamella_sampling_params* params, size_t struct_size);

/* One request, from its submission to its end. */
typedef struct lamella_stream lamella_stream;

/* Requests stand in arrays and stay as they are: what comes later has its place in lamella_sampling_params. */
typedef struct lamella_request {
  lamella_token_ids prompt;
  const lamella_sampling_params* sampling; /* NULL: the defaults */
} lamella_request;

/* Checks `count` requests, all of them before the first is queued, then queues them in order and puts out a stream for
 * each into `streams`, an array of that length. They are the caller's, each to be freed. What the requests point to is
 * copied. Errors: those of lamella::Engine::submit(); the message names the index; all streams are NULL then. */
lamella_code lamella_submit(lamella_engine* engine, const lamella_request* requests, size_t count,
                            lamella_stream** streams);

/* The engine's number for the request: ascending, from 1. 0 for NULL. */
uint64_t lamella_stream_id(const lamella_stream* stream);

/* Ends the request before its next step; its last news say LAMELLA_REASON_CANCELLED. NULL is ignored. */
void lamella_stream_cancel(lamella_stream* stream);

/* Ends one choice as finished before its next step: what it has said is enough. NULL is ignored. */
void lamella_stream_stop(lamella_stream* stream, int32_t choice);

/* 1 once the end of every choice was told, and for NULL. */
int32_t lamella_stream_finished(const lamella_stream* stream);

/* Puts out a descriptor that poll() sees as readable while there are news; it stays the stream's. */
lamella_code lamella_stream_event_fd(lamella_stream* stream, int* event_fd);

/* Cancels the request and frees the stream. News taken from it stay. NULL is ignored. */
void lamella_stream_free(lamella_stream* stream);

/* ---- news ---- */

/* Why a choice is over. */
enum {
  LAMELLA_REASON_RUNNING = 0,
  LAMELLA_REASON_STOP = 1,
  LAMELLA_REASON_LENGTH = 2,
  LAMELLA_REASON_CANCELLED = 3,
  LAMELLA_REASON_ERROR = 4
};

/* What is new about the choices of one request. For one thread at a time. */
typedef struct lamella_news lamella_news;

typedef struct lamella_token_logprob {
  int32_t token;
  float logprob;
  int32_t rank;
} lamella_token_logprob;

/* The entries of one token: itself first, then the best ones. */
typedef struct lamella_token_logprobs {
  const lamella_token_logprob* entries;
  size_t count;
} lamella_token_logprobs;

/* lamella::Progress. What it points to belongs to the news that it was read from. */
typedef struct lamella_progress {
  size_t struct_size;
  uint64_t id;
  int32_t choice;
  int32_t reason;           /* LAMELLA_REASON_ */
  lamella_code error;       /* LAMELLA_OK but where the reason is LAMELLA_REASON_ERROR */
  const char* error_message; /* "" without an error */
  const int32_t* tokens;
  const double* times_s; /* of each token */
  size_t token_count;
  double first_token_s;
  const lamella_token_logprobs* logprobs; /* of each token, where asked for; else NULL */
  const lamella_token_logprobs* prompt_logprobs;
  size_t prompt_logprobs_count; /* the prompt's tokens, with the first news of choice 0 where asked for; else 0 */
} lamella_progress;

/* Waits up to `timeout_s` seconds (INFINITY: for ever; 0: not at all) for news and puts them out; they are the
 * caller's, to be freed. They have no item where time ran out and once the request is over. Errors: out of memory,
 * which loses no news. */
lamella_code lamella_stream_next(lamella_stream* stream, double timeout_s, lamella_news** news);

/* Items, one a choice that has news. 0 for NULL. */
size_t lamella_news_count(const lamella_news* news);

/* Fills `progress`, whose struct_size the caller has set, with item `index`. Errors: out of memory, where
 * log-probabilities were asked for; the call may be repeated. */
lamella_code lamella_news_get(lamella_news* news, size_t index, lamella_progress* progress);

/* NULL is ignored. */
void lamella_news_free(lamella_news* news);

#ifdef __cplusplus
}
#endif

#endif
