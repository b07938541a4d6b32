# Blocks of code on a page of documentation.

# next_block(LANGUAGE): takes the first block of a language off `text` into `block`, which is empty where there is none.
macro(next_block language)
  set(block "")
  string(FIND "${text}" "\n```${language}\n" begin)
  if(NOT begin EQUAL -1)
    string(LENGTH "\n```${language}\n" mark)
    math(EXPR begin "${begin} + ${mark}")
    string(SUBSTRING "${text}" ${begin} -1 text)
    string(FIND "${text}" "\n```\n" end)
    string(SUBSTRING "${text}" 0 ${end} block)
    string(SUBSTRING "${text}" ${end} -1 text)
  endif()
endmacro()
