/*
 * fake_internal.h: what the source and the sink of fake_connector.h share. Nobody else includes it.
 */
#ifndef FAKE_INTERNAL_H
#define FAKE_INTERNAL_H

#include <uv.h>

#include "tests/support/fake_connector.h"

extern struct fake *fake_current; /* the one in use */

/* Fails the test unless it holds. */
__attribute__((format(printf, 2, 3))) void fake_check(bool holds, const char *format, ...);
/* Of a message the pipeline holds; anything else fails the test. */
struct fake_message *fake_ledger(struct fake *fake, const struct message *message);
/* What was copied of its outputs. */
void fake_copies_free(struct fake_message *message);
/* It counts no more, and its memory is there until it is freed. */
void fake_message_settle(struct fake *fake, struct fake_message *message, enum fake_state state);
/* Never 0 ms: libuv 1.44 would run a timer that starts itself again without end. */
void fake_turn_later(struct fake *fake, uv_timer_t *timer, uv_timer_cb turn);

#endif
