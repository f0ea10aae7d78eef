/*
 * rabbitmq_amqp.h: librabbitmq's headers, where this version of it has them.
 *
 * Why: 0.12 and newer warn of the old names.
 */
#ifndef RABBITMQ_AMQP_H
#define RABBITMQ_AMQP_H

#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/framing.h>
#else
#include <amqp.h>
#include <amqp_framing.h>
#endif

#endif
