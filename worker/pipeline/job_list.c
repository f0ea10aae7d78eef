/*
 * job_list.c: see job_list.h.
 */
#include "worker/pipeline/job_list.h"

#include <assert.h>

void job_list_clear(struct job_list *list)
{
    list->first = NULL;
    list->end = &list->first;
}

void job_list_add(struct job_list *list, struct job *job)
{
    job->next = NULL;
    assert(!*list->end);
    *list->end = job;
    list->end = &job->next;
}

struct job *job_list_take(struct job_list *list)
{
    struct job *first = list->first;
    if (!first)
        return NULL;
    list->first = first->next;
    if (!list->first)
        list->end = &list->first;
    return first;
}

struct job *job_list_take_all(struct job_list *list)
{
    struct job *first = list->first;
    job_list_clear(list);
    return first;
}

size_t job_list_drop(struct job_list *list, const struct pool_user *user)
{
    struct job *job = job_list_take_all(list);
    size_t n = 0;
    for (struct job *next; job; job = next) {
        next = job->next;
        if (job->user == user)
            n++;
        else
            job_list_add(list, job);
    }
    return n;
}
