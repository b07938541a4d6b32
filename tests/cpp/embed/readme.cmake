# Fails where the README's C++ does not compile against the public headers. Arguments: README, INCLUDE (the folder that
# holds lamella/), COMPILER, WORK (a file to write).
file(READ ${README} text)
string(FIND "${text}" "```cpp\n" begin)
string(SUBSTRING "${text}" ${begin} -1 text)
string(FIND "${text}" "\n```\n" end)
if(begin EQUAL -1 OR end LESS 100)
  message(FATAL_ERROR "found no C++ in ${README}")
endif()
math(EXPR length "${end} - 7")
string(SUBSTRING "${text}" 7 ${length} text)
file(WRITE ${WORK} "#include <lamella/engine.h>
int fail(lamella::ErrorCode code, const char* message);
void show(const std::vector<std::int32_t>& tokens);
int service(const std::vector<std::int32_t>& ids) {
${text}
  return 0;
}
")
execute_process(COMMAND ${COMPILER} -std=c++20 -Wall -Wextra -Werror -fsyntax-only -I ${INCLUDE} ${WORK}
  COMMAND_ERROR_IS_FATAL ANY)
