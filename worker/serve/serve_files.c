/*
 * serve_files.c: see serve_files.h. The assembler puts the files where they are needed; CMake says
 * which folder they are in, and builds anew when one changes.
 */
#include "worker/serve/serve_files.h"

#define FILE_BYTES(name, file)                                                                     \
    __asm__(".pushsection .rodata\n"                                                               \
            ".global serve_file_" name "_begin, serve_file_" name "_end\n"                         \
            "serve_file_" name "_begin:\n"                                                         \
            ".incbin \"" SERVE_FOLDER "/" file "\"\n"                                              \
            "serve_file_" name "_end:\n"                                                           \
            ".byte 0\n"                                                                            \
            ".popsection\n")

FILE_BYTES("openapi", "openapi.json");
extern const char serve_file_openapi_begin[], serve_file_openapi_end[];

struct bytes serve_file_openapi(void)
{
    return (struct bytes){serve_file_openapi_begin,
                          (size_t)(serve_file_openapi_end - serve_file_openapi_begin)};
}

FILE_BYTES("page", "page.html");
extern const char serve_file_page_begin[], serve_file_page_end[];

struct bytes serve_file_page(void)
{
    return (struct bytes){serve_file_page_begin,
                          (size_t)(serve_file_page_end - serve_file_page_begin)};
}
