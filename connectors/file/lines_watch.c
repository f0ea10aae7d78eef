/*
 * lines_watch.c: standard descriptors on a loop.
 *
 * Why:     uv_read_start would need a different handle for each kind of descriptor and makes them
 *          non-blocking for everyone; a read on libuv's threads cannot be taken back, so a worker
 *          told to stop would hang on a terminal. Files never block for long: they do go there.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "connectors/file/lines.h"

int lines_watch(uv_loop_t *loop, uv_poll_t *poll, int fd, bool *pollable)
{
    struct stat about;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fstat(fd, &about) != 0)
        return -errno;
    *pollable = false;
    /* Threads read and write files (epoll would refuse them): they never wait for long. */
    if (S_ISREG(about.st_mode))
        return 0;
    int rc = uv_poll_init(loop, poll, fd);
    if (rc == UV_EPERM) /* epoll's answer for what is always ready, such as /dev/null */
        return 0;
    if (rc != 0)
        return rc;
    /* uv_poll_init has made it non-blocking for the shell and its other children, too. */
    *pollable = true;
    return fcntl(fd, F_SETFL, flags) == 0 ? 0 : -errno;
}
