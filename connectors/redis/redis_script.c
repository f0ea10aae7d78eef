/*
 * redis_script.c: see redis_script.h.
 *
 * Why this order in publish: Lua does not roll back. With XACK first, an XADD that then fails would
 * lose the message; with XADD first and no check, a worker whose message was claimed while it
 * slept would publish it a second time.
 *
 * Why renew is a script: XCLAIM takes a message from whoever has it, so a worker that slept beyond
 * its lease must not renew what another has taken over meanwhile.
 */
#include "connectors/redis/redis_script.h"

const char redis_script_publish[] =
    "if ARGV[1] ~= '' then\n"
    "  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])\n"
    "  if #pending == 0 then return 0 end\n"
    "end\n"
    "local i, nth = 4, 1\n"
    "while i <= #ARGV do\n"
    "  local n = tonumber(ARGV[i])\n"
    "  local reply = redis.pcall(unpack(ARGV, i + 1, i + n))\n"
    "  if type(reply) == 'table' and reply.err then return {nth, reply.err} end\n"
    "  i = i + n + 1\n"
    "  nth = nth + 1\n"
    "end\n"
    "if ARGV[1] ~= '' then redis.call('XACK', KEYS[1], ARGV[1], ARGV[3]) end\n"
    "return 1\n";

const char redis_script_renew[] =
    "local mine = {}\n"
    "for i = 3, #ARGV do\n"
    "  local id = ARGV[i]\n"
    "  if #redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2]) > 0 then\n"
    "    mine[#mine + 1] = id\n"
    "  end\n"
    "end\n"
    "if #mine == 0 then return 0 end\n"
    "mine[#mine + 1] = 'JUSTID'\n"
    "redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, unpack(mine))\n"
    "return #mine - 1\n";

const char redis_script_return[] =
    "for i = 4, #ARGV do\n"
    "  local id = ARGV[i]\n"
    "  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2])\n"
    "  if #pending > 0 then\n"
    "    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'IDLE', ARGV[3],\n"
    "      'RETRYCOUNT', math.max(pending[1][4] - 1, 0), 'JUSTID')\n"
    "  end\n"
    "end\n"
    "return 1\n";
