/*
 * c11_threads.c: the C11 threads that librdkafka uses, made of POSIX ones, for ThreadSanitizer
 * only.
 *
 * Why: the sanitizer of gcc 12 knows pthread_create and its locks, but not thrd_create and its
 *      kin: a thread made by those crashes in it, and their locks order nothing. glibc's C11 types
 *      are its POSIX types by other names, so these are the same functions as it has itself.
 */
#include "tests/support/c11_threads.h"

#ifdef __SANITIZE_THREAD__
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <threads.h>

/*
 * The library counts references by atomic operations that the sanitizer does not see, so its frees
 * look like races; with its frees its read-write locks are left out too, so that the making of a
 * mutex may seem to race with its use. The mutexes and conditions below, which order everything it
 * hands to us, are seen, and so are our own functions when the library calls them back.
 */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "called_from_lib:librdkafka.so\nrace:^mtx_\nrace:^cnd_\n";
}

struct start {
    thrd_start_t run;
    void *arg;
};

static void *run(void *arg)
{
    struct start start = *(struct start *)arg;
    free(arg);
    return (void *)(intptr_t)start.run(start.arg);
}

static int result(int err)
{
    return err == 0           ? thrd_success
           : err == ETIMEDOUT ? thrd_timedout
           : err == EBUSY     ? thrd_busy
                              : thrd_error;
}

int thrd_create(thrd_t *thread, thrd_start_t function, void *arg)
{
    struct start *start = malloc(sizeof *start);
    if (!start)
        return thrd_nomem;
    *start = (struct start){function, arg};
    int err = pthread_create(thread, NULL, run, start);
    if (err)
        free(start);
    return result(err);
}

int thrd_join(thrd_t thread, int *code)
{
    void *value;
    int err = pthread_join(thread, &value);
    if (!err && code)
        *code = (int)(intptr_t)value;
    return result(err);
}

int mtx_init(mtx_t *mutex, int type)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    if (type & mtx_recursive)
        pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    int err = pthread_mutex_init((pthread_mutex_t *)mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return result(err);
}

void mtx_destroy(mtx_t *mutex)
{
    pthread_mutex_destroy((pthread_mutex_t *)mutex);
}

int mtx_lock(mtx_t *mutex)
{
    return result(pthread_mutex_lock((pthread_mutex_t *)mutex));
}

int mtx_unlock(mtx_t *mutex)
{
    return result(pthread_mutex_unlock((pthread_mutex_t *)mutex));
}

int cnd_init(cnd_t *condition)
{
    return result(pthread_cond_init((pthread_cond_t *)condition, NULL));
}

void cnd_destroy(cnd_t *condition)
{
    pthread_cond_destroy((pthread_cond_t *)condition);
}

int cnd_signal(cnd_t *condition)
{
    return result(pthread_cond_signal((pthread_cond_t *)condition));
}

int cnd_broadcast(cnd_t *condition)
{
    return result(pthread_cond_broadcast((pthread_cond_t *)condition));
}

int cnd_wait(cnd_t *condition, mtx_t *mutex)
{
    return result(pthread_cond_wait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex));
}

int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *end)
{
    return result(
        pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, end));
}
#endif

/* So that the linker takes this file. */
void c11_threads_use(void)
{
}
