// The C interface's news.
#pragma once

#include <vector>

#include "lamella/c.h"
#include "lamella/request.h"

struct lamella_news {
  /// Log-probabilities as C sees them. Made when they are first looked at: that may fail, and then no news must be
  /// lost.
  struct Logprobs {
    std::vector<std::vector<lamella_token_logprob>> entries;  // of each token
    std::vector<lamella_token_logprobs> views;                // of `entries`
  };

  std::vector<lamella::Progress> items;
  std::vector<Logprobs> logprobs = {}, prompt_logprobs = {};  // of each item, or none yet
};
