"""Downloads, chunked work on millions of molecules, whole files, seeds and errors."""
