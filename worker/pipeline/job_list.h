/*
 * job_list.h: jobs of the pool in a row, first in first out.
 *
 * Owns:    nothing: jobs are linked by their ->next.
 * Threads: one at a time, under the pool's lock.
 */
#ifndef JOB_LIST_H
#define JOB_LIST_H

#include "worker/pipeline/pool.h"

struct job_list {
    struct job *first;
    struct job **end;
};

void job_list_clear(struct job_list *list); /* also opens it */
void job_list_add(struct job_list *list, struct job *job);
struct job *job_list_take(struct job_list *list);     /* NULL when empty */
struct job *job_list_take_all(struct job_list *list); /* a list by ->next */
/* Take out the jobs of a user; how many those were. */
size_t job_list_drop(struct job_list *list, const struct pool_user *user);

#endif
