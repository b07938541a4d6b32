/* A service written in C. */
#ifndef LAMELLA_TESTS_C_CLIENT_H
#define LAMELLA_TESTS_C_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Uses the whole of lamella/c.h on a store. `expected` is what a greedy request for `prompt` says. Returns NULL, or
 * what did not hold and where. */
const char* use_c_interface(const char* store, const int32_t* prompt, size_t prompt_count, const int32_t* expected,
                            size_t expected_count);

#ifdef __cplusplus
}
#endif

#endif
