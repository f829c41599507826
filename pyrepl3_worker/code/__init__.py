"""What is done with a cell's source before it runs. Start reading at `Compiler` in `compiler`.

analysis           finds the execution mode: does the code await, does it block?
compiler           source to code objects, and the cache of them
compiler_warnings  whether the compiler has something to warn of, which it does each time
cell_sources       cells' sources in `linecache`
function_wrapper   the AST fallback: makes a cell the body of a function, for `return` at the top level
import_control     `ImportController`: allowed and denied modules
suggestions        `ErrorRecovery`: suggests corrections of code that does not compile
own_frames         which frames of a stack are the worker's own, by their files
"""
