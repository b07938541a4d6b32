# Installs the C++ package from the build tree, builds examples/embed_cpp on it as a project of its own, and the C program
# of docs/embedding.md as another, and runs both on a small store. Arguments: BUILD (the tree), SOURCE (the repository), WORK (a folder to use), PACK (pack_example),
# GENERATOR, COMPILER, BUILD_TYPE, FLAGS (what the library was compiled with and its users need: sanitizers).
file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK}/store)

function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ECHO STDOUT COMMAND_ERROR_IS_FATAL ANY)
endfunction()

run(${CMAKE_COMMAND} --install ${BUILD} --component development --prefix ${WORK}/prefix)
run(${CMAKE_COMMAND} -S ${SOURCE}/examples/embed_cpp -B ${WORK}/build -G ${GENERATOR} -DCMAKE_PREFIX_PATH=${WORK}/prefix
  -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_BUILD_TYPE=${BUILD_TYPE}
  "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror ${FLAGS}")
run(${CMAKE_COMMAND} --build ${WORK}/build)

run(${PACK} ${WORK}/store)
file(STRINGS ${WORK}/store/prompts prompts)
file(READ ${WORK}/store/expected expected)
execute_process(COMMAND ${WORK}/build/embed ${WORK}/store ${prompts}
  OUTPUT_VARIABLE said COMMAND_ECHO STDOUT COMMAND_ERROR_IS_FATAL ANY)
if(NOT said STREQUAL expected)
  message(FATAL_ERROR "the example said:\n${said}\nexpected:\n${expected}")
endif()
run(${WORK}/build/embed ${WORK}/store)  # with prompts of its own

# What it cannot serve it says, with an exit code.
foreach(arguments "${WORK}/absent" "${WORK}/store;500")
  execute_process(COMMAND ${WORK}/build/embed ${arguments}
    RESULT_VARIABLE code OUTPUT_VARIABLE said ERROR_VARIABLE said)
  if(NOT code EQUAL 1)
    message(FATAL_ERROR "embed ${arguments} ended with ${code}; expected 1")
  endif()
endforeach()

# The program in C, which opens OUT where it is run.
include(${CMAKE_CURRENT_LIST_DIR}/blocks.cmake)
file(READ ${SOURCE}/docs/embedding.md text)
next_block(c)
file(WRITE ${WORK}/c/program.c "${block}\n")
file(WRITE ${WORK}/c/CMakeLists.txt "cmake_minimum_required(VERSION 3.24)
project(program LANGUAGES C CXX)
find_package(lamella 0.1 REQUIRED)
add_executable(program program.c)
target_link_libraries(program PRIVATE lamella::lamella)
set_target_properties(program PROPERTIES LINKER_LANGUAGE CXX)
")
run(${CMAKE_COMMAND} -S ${WORK}/c -B ${WORK}/c/build -G ${GENERATOR} -DCMAKE_PREFIX_PATH=${WORK}/prefix
  -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_BUILD_TYPE=${BUILD_TYPE} "-DCMAKE_C_FLAGS=${FLAGS}"
  "-DCMAKE_CXX_FLAGS=${FLAGS}")
run(${CMAKE_COMMAND} --build ${WORK}/c/build)
file(CREATE_LINK ${WORK}/store ${WORK}/c/OUT SYMBOLIC)
execute_process(COMMAND ${WORK}/c/build/program WORKING_DIRECTORY ${WORK}/c
  OUTPUT_VARIABLE said COMMAND_ECHO STDOUT COMMAND_ERROR_IS_FATAL ANY)
if(NOT said MATCHES "^([0-9]+\n)+$")
  message(FATAL_ERROR "the program in C said:\n${said}\nexpected tokens")
endif()
