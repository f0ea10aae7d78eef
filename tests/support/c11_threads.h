/*
 * c11_threads.h: to be called by every test that starts librdkafka's threads.
 *
 * Why: a call is what makes the linker take c11_threads.c, which ThreadSanitizer needs.
 */
#ifndef C11_THREADS_H
#define C11_THREADS_H

void c11_threads_use(void);

#endif
