"""A cell's source, before it runs.

analysis           which execution mode: does it await, does it block?
compiler           source to code objects, and the cache of them
function_wrapper   the AST fallback: the cell as the body of an async function
cell_sources       cells in `linecache`, so that tracebacks show their lines
import_control     allowed and denied modules
suggestions        mends for code that does not compile
own_frames         which frames of a stack are the worker's own
"""
