/*
 * redis_fault.c: see redis_fault.h.
 *
 * Owns:    the table of codes and the table of words.
 * Threads: no state.
 * Why:     servers reword their errors from one release to the next and keep the codes. What each
 *          release says, collected from running servers, is tests/data/redis_refusals.tsv.
 */
#include "connectors/redis/redis_fault.h"

#include <string.h>
#include <strings.h>

#define ALLOW            "allow this user the command and the keys (ACL SETUSER)"
#define OLD              "Redis 6.2 or newer is needed"
#define VALUE            "the value is above the server's proto-max-bulk-len"
#define DATABASE         "the server has no such database; see the number after / in the URL"
#define ONE_SLOT         "a cluster needs one {tag} in the names of the stream and the outputs"
#define MOVING           "the cluster is moving these keys to another node"
#define SERVERS_PASSWORD "the server has no password set; remove it from the URL"

static const struct redis_fault codes[] = {
    {REMEDY_RECONNECT, "LOADING", "the server is loading its data"},
    {REMEDY_RECONNECT, "MASTERDOWN", "the replica has lost its master"},
    {REMEDY_RECONNECT, "READONLY", "this server is a replica; the URL must lead to the master"},
    {REMEDY_RETRY, "MISCONF", "the server cannot save to disk and refuses writes; free its disk"},
    {REMEDY_RETRY, "OOM", "the server has reached maxmemory; free memory there or raise it"},
    {REMEDY_RETRY, "BUSYGROUP", "the group exists"},
    {REMEDY_RETRY, "BUSY", "the server is running a long script"},
    {REMEDY_RETRY, "TRYAGAIN", MOVING},
    {REMEDY_RECONNECT, "CLUSTERDOWN", "the cluster is down"},
    {REMEDY_RETRY, "NOREPLICAS", "the server lacks the replicas it needs to accept writes"},
    {REMEDY_SCRIPT, "NOSCRIPT", "the script cache was emptied"},
    {REMEDY_GROUP, "NOGROUP", "the consumer group is gone"},
    {REMEDY_GROUP, "UNBLOCKED", "the stream was deleted or is of another type now"},
    {REMEDY_RETRY, "UNKILLABLE", "the server is running a script that has written"},
    {REMEDY_FATAL, "NOAUTH", "the server wants a password; put it into the URL"},
    {REMEDY_FATAL, "WRONGPASS", "user or password in the URL is wrong, or the user is disabled"},
    {REMEDY_FATAL, "NOPERM", ALLOW},
    {REMEDY_FATAL, "WRONGTYPE",
     "a key of that name holds another type; choose another name or delete the key"},
    {REMEDY_FATAL, "MOVED",
     "this is a node of a cluster and the key lives on another one: use redis+cluster://"},
    {REMEDY_RETRY, "ASK", "the cluster is moving this key"},
    {REMEDY_FATAL, "CROSSSLOT", ONE_SLOT},
    {REMEDY_FATAL, "NOPROTO", "the server speaks another protocol version"},
    {REMEDY_FATAL, "DENIED", "the server is in protected mode; give it a password or bind it"},
};

/* Beginnings of errors without a code of their own; the first match counts. */
static const struct {
    const char *start;
    struct redis_fault fault;
} words[] = {
    /* A right missing inside a script: Redis 7.2 and later, Valkey; Redis 6 and 7.0. */
    {"ACL failure in script", {REMEDY_FATAL, "NOPERM", ALLOW}},
    {"The user executing the script can't", {REMEDY_FATAL, "NOPERM", ALLOW}},
    {"max number of clients", {REMEDY_RECONNECT, "ERR", "the server has reached maxclients"}},
    {"Protocol error: invalid bulk length", {REMEDY_TOO_LARGE, "ERR", VALUE}},
    {"Protocol error: invalid multibulk length",
     {REMEDY_TOO_LARGE, "ERR", "Redis before 7 takes 1,048,576 words in a command"}},
    {"Protocol error", {REMEDY_RECONNECT, "ERR", "the server did not understand us"}},
    {"string exceeds maximum allowed size", {REMEDY_TOO_LARGE, "ERR", VALUE}},
    {"The stream has exhausted the last possible ID",
     {REMEDY_FATAL, "ERR",
      "an entry there has the highest possible id; write to another stream, "
      "or delete this one"}},
    {"DB index is out of range", {REMEDY_FATAL, "ERR", DATABASE}},
    {"invalid DB index", {REMEDY_FATAL, "ERR", DATABASE}},
    {"SELECT is not allowed in cluster mode",
     {REMEDY_FATAL, "ERR", "a cluster has database 0 only; see the URL"}},
    {"AUTH", {REMEDY_FATAL, "ERR", SERVERS_PASSWORD}},
    {"Client sent AUTH", {REMEDY_FATAL, "ERR", SERVERS_PASSWORD}},
    {"invalid password", {REMEDY_FATAL, "ERR", "the password in the URL is wrong"}},
    {"wrong number of arguments for 'auth'",
     {REMEDY_FATAL, "ERR", "the server knows no users; leave the user out of the URL"}},
    {"wrong number of arg", {REMEDY_FATAL, "ERR", OLD}},
    {"unknown command", {REMEDY_FATAL, "ERR", OLD}},
    {"Unknown Redis command called from", {REMEDY_FATAL, "ERR", OLD}},
    {"syntax error", {REMEDY_FATAL, "ERR", OLD}},
    /* Keys of a script in a cluster. */
    {"Script attempted to access a slot not served",
     {REMEDY_RECONNECT, "CLUSTERDOWN", "the cluster is down"}},
    {"Script attempted to access keys that do not hash", {REMEDY_FATAL, "CROSSSLOT", ONE_SLOT}},
    /* Our scripts name their keys, so keys apart are a CROSSSLOT; this is one that was moved. */
    {"Script attempted to access a non local key", {REMEDY_RETRY, "TRYAGAIN", MOVING}},
    {"Lua script attempted to access a non local key", {REMEDY_RETRY, "TRYAGAIN", MOVING}},
    {"Attempted to access a non local key", {REMEDY_RETRY, "TRYAGAIN", MOVING}},
    {"Script killed by user", {REMEDY_RETRY, "ERR", "somebody ended the script on the server"}},
};

#define N_CODES (sizeof(codes) / sizeof(codes[0]))
#define N_WORDS (sizeof(words) / sizeof(words[0]))

static const char *skip(const char *text, const char *start)
{
    size_t len = strlen(start);
    return strncmp(text, start, len) == 0 ? text + len : text;
}

/* Redis 6: "ERR Error running script (call to f_3a...): @user_script:8: @user_script: 8: -OOM ...",
 * where not all of it need be there. */
static const char *script_cause(const char *text)
{
    const char *place, *cause;

    if (strncmp(text, "ERR Error running script", 24) != 0)
        return text;
    cause = strstr(text, "): ");
    if (!cause)
        return text;
    cause += 3;
    while ((place = skip(cause, "@user_script:")) != cause)
        cause = place + strspn(place, " 0123456789:");
    return skip(cause, "-");
}

/* NULL: text does not begin with a code that means something here. */
static const struct redis_fault *find_code(const char *text)
{
    /* A code is the first word, in capitals. */
    size_t len = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");

    if (text[len] != ' ' && text[len] != ':' && text[len] != '\0')
        return NULL;
    for (size_t i = 0; i < N_CODES; i++)
        if (strncmp(text, codes[i].code, len) == 0 && codes[i].code[len] == '\0')
            return &codes[i];
    return NULL;
}

struct redis_fault redis_fault_find(const char *text)
{
    const char *cause = script_cause(text);
    const struct redis_fault *fault = find_code(cause);

    if (!fault) {
        /* An imitation may have put ERR before the real code. */
        cause = skip(cause, "ERR ");
        fault = find_code(cause);
    }
    for (size_t i = 0; !fault && i < N_WORDS; i++)
        if (strncasecmp(cause, words[i].start, strlen(words[i].start)) == 0)
            fault = &words[i].fault;
    if (fault)
        return *fault;
    return (struct redis_fault){REMEDY_UNKNOWN, "ERR", "an error this program does not know"};
}
