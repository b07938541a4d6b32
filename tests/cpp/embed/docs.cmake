# Fails where the C++ or the C of the README and of docs/ does not compile against the public headers. The C++ of a page is
# one function's body; each piece of C is a program. Arguments: SOURCE (the repository), COMPILER and C_COMPILER, WORK (a
# folder to write into).
include(${CMAKE_CURRENT_LIST_DIR}/blocks.cmake)
set(include ${SOURCE}/cpp/include)
set(warnings -Wall -Wextra -Werror -fsyntax-only -I ${include})
file(MAKE_DIRECTORY ${WORK})

set(found_cpp 0)
set(found_c 0)
file(GLOB pages ${SOURCE}/README.md ${SOURCE}/docs/*.md)
foreach(page ${pages})
  get_filename_component(name ${page} NAME_WE)

  file(READ ${page} text)
  set(body "")
  next_block(cpp)
  while(NOT block STREQUAL "")
    string(APPEND body "${block}\n")
    next_block(cpp)
  endwhile()
  if(NOT body STREQUAL "")
    math(EXPR found_cpp "${found_cpp} + 1")
    file(WRITE ${WORK}/${name}.cpp "#include <lamella/engine.h>
int fail(lamella::ErrorCode code, const char* message);
void show(const std::vector<std::int32_t>& tokens);
int service(const std::vector<std::int32_t>& ids) {
${body}
return 0;
}
")
    execute_process(COMMAND ${COMPILER} -std=c++20 ${warnings} ${WORK}/${name}.cpp COMMAND_ERROR_IS_FATAL ANY)
  endif()

  file(READ ${page} text)
  next_block(c)
  while(NOT block STREQUAL "")
    math(EXPR found_c "${found_c} + 1")
    file(WRITE ${WORK}/${name}-${found_c}.c "${block}\n")
    execute_process(COMMAND ${C_COMPILER} -std=c99 -Wpedantic ${warnings} ${WORK}/${name}-${found_c}.c
      COMMAND_ERROR_IS_FATAL ANY)
    next_block(c)
  endwhile()
endforeach()
if(found_cpp EQUAL 0 OR found_c EQUAL 0)
  message(FATAL_ERROR "found ${found_cpp} pages with C++ and ${found_c} programs in C below ${SOURCE}")
endif()
message("compiled the C++ of ${found_cpp} pages and ${found_c} programs in C")
