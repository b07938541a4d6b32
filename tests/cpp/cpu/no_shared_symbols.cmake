# Fails where an object of a kernel set defines a weak symbol: the linker keeps one copy of it for the whole program, and that copy
# could be the one compiled for AVX-512. Arguments: NM, OBJECTS (a list).
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} -C --defined-only ${object} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[0-9a-f]+ [WVu] [^\n]*" shared "${symbols}")
  if(shared)
    list(JOIN shared "\n  " shared)
    message(FATAL_ERROR "${object} defines symbols that other code may share:\n  ${shared}")
  endif()
endforeach()
