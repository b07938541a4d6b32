#include "runtime/request_rules.h"

#include "runtime/sampler.h"
#include "runtime/sequence.h"

namespace lamella {

void RequestRules::validate_tokens(std::span<const std::int32_t> tokens) const {
  if (tokens.empty()) throw Error(ErrorCode::invalid_argument, "the prompt has no tokens");
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] < 0 || tokens[i] >= vocabulary)
      throw Error(ErrorCode::invalid_argument,
                  concat("prompt token ", i, " is ", tokens[i], "; the vocabulary has ids 0 to ", vocabulary - 1));
  const auto length = static_cast<std::int64_t>(tokens.size());
  if (length > max_model_len)
    throw Error(ErrorCode::context_too_long, concat("the prompt has ", length, " tokens and the context holds ",
                                                    max_model_len, "; shorten it or raise max_model_len"));
}

void RequestRules::validate_fits(std::int64_t prompt, std::int64_t max_tokens) const {
  const std::int64_t needed = retention.most_blocks(cached_tokens(prompt, max_tokens));
  if (needed > kv_blocks)
    throw Error(ErrorCode::out_of_memory,
                concat("a prompt of ", prompt, " tokens plus max_tokens ", max_tokens, " needs ", needed,
                       " KV blocks of ", kv_block_tokens, " tokens and the whole cache has ", kv_blocks,
                       "; ask for fewer tokens, or open the model with more kv_cache_memory"));
}

void RequestRules::validate(const Request& request) const {
  if (is_encoder)
    throw Error(ErrorCode::invalid_argument, concat(family, " is an encoder and generates nothing; use encode()"));
  lamella::validate(request.sampling, vocabulary);
  validate_tokens(request.prompt);
  const auto prompt = static_cast<std::int64_t>(request.prompt.size());
  const std::int64_t room = max_model_len - prompt;
  if (request.sampling.max_tokens > room)
    throw Error(ErrorCode::context_too_long,
                concat("a prompt of ", prompt, " tokens plus max_tokens ", request.sampling.max_tokens,
                       " exceeds the context of ", max_model_len,
                       room > 0 ? concat("; ask for at most ", room)
                                : std::string(", which the prompt fills; shorten it or raise max_model_len")));
  validate_fits(prompt, request.sampling.max_tokens);
}

}  // namespace lamella
