/*
 * serve_setup.c: see serve_setup.h.
 */
#include "worker/commands/serve_setup.h"

struct serve_options serve_setup_options(const struct settings *settings)
{
    const char *prompt = settings_text(settings, "http.prompt");
    return (struct serve_options){
        .where = settings_text(settings, "http.listen"),
        .key_file = settings_text(settings, "http.key_file"),
        .prompt = prompt[0] ? prompt : settings_text(settings, "prompt"),
        .models = settings_text(settings, "http.models"),
        .connections = (size_t)settings_number(settings, "http.connections"),
        .body_bytes = (size_t)settings_number(settings, "http.body_size"),
        .max_texts = (size_t)settings_number(settings, "max_texts"),
        .max_text_bytes = (size_t)settings_number(settings, "max_text_size"),
        .queue_tokens = (size_t)settings_number(settings, "http.queue_tokens"),
        .timeout_ms = (uint64_t)settings_number(settings, "http.timeout"),
        .drain_ms = (uint64_t)settings_number(settings, "drain_timeout"),
    };
}
