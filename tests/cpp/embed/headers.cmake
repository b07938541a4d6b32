# Fails where a public header does not compile on its own, with all warnings as errors. Arguments: INCLUDE (the folder
# that holds lamella/), COMPILER (a C++ compiler), C_COMPILER (its C side).
if(NOT COMPILER OR NOT C_COMPILER)
  message("SKIPPED: this machine has no such compiler")
  return()
endif()
set(warnings -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -fsyntax-only -I ${INCLUDE})
file(GLOB headers RELATIVE ${INCLUDE} ${INCLUDE}/lamella/*.h)
list(LENGTH headers count)
if(count LESS 5)
  message(FATAL_ERROR "found only ${count} headers in ${INCLUDE}/lamella")
endif()

function(compile header compiler)
  execute_process(COMMAND ${compiler} ${ARGN} ${warnings} -include ${header} /dev/null
    RESULT_VARIABLE code ERROR_VARIABLE said)
  if(NOT code EQUAL 0)
    message(SEND_ERROR "${header} with ${compiler} ${ARGN}:\n${said}")
  endif()
endfunction()

foreach(header ${headers})
  compile(${header} ${COMPILER} -x c++ -std=c++20)
endforeach()
compile(lamella/c.h ${C_COMPILER} -x c -std=c99)
compile(lamella/c.h ${C_COMPILER} -x c -std=c11)
