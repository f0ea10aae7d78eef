/*
 * redis_script.c: see redis_script.h.
 *
 * Why this order in publish: Lua does not roll back. With XACK first, an XADD that then fails would
 * lose the message; with XADD first and no check, a worker whose message was claimed while it
 * slept would publish it a second time. Whether the user may XACK is asked before all (Redis 7):
 * else the output would be there and the message would come again, with each restart.
 *
 * What publish knows of a text: beside its key PREFIX ID, or the keys PREFIX ID # N of its chunks,
 * a head at PREFIX ID # with "CHUNKS:VERSION", where it has chunks or a version. The head counts
 * chunks before they are written and after surplus ones are gone, so that a command that fails in
 * between leaves none that nobody knows of. A surplus chunk is not a key of the script, so while a
 * cluster moves the slot it may be elsewhere already: then all is done again later.
 *
 * Why renew is a script: XCLAIM takes a message from whoever has it, so a worker that slept beyond
 * its lease must not renew what another has taken over meanwhile. And XCLAIM forgets what was
 * trimmed from the stream: the message that we have in hand would not be ours any more, and its
 * output would be lost.
 *
 * Why survey writes: the group's counter of entries read (XGROUP SETID ... ENTRIESREAD) is set over
 * what is lost, its position is left as it is. So a loss is reported once, by one of the workers,
 * and the lag that Redis 7.0 counts of entries that are gone is mended for all who read it. Once an
 * entry was deleted in the midst of what waits, the server forgets that counter with each read, and
 * knows no lag; so what waits is counted, as long as it is little: it is read for that.
 */
#include "connectors/redis/redis_script.h"

const char redis_script_publish[] =
    "if ARGV[1] ~= '' then\n"
    "  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1, ARGV[2])\n"
    "  if #pending == 0 then return 0 end\n"
    "  if redis.acl_check_cmd and not redis.acl_check_cmd('XACK', KEYS[1], ARGV[1], ARGV[3]) then\n"
    "    return redis.error_reply(\"NOPERM this user may not run 'xack'\")\n"
    "  end\n"
    "end\n"
    "local i, nth, outdated, text = 4, 1, 0, nil\n"
    "local function put(n, version)\n"
    "  if text.ttl == '' then return redis.pcall('SET', text.head, n .. ':' .. version) end\n"
    "  return redis.pcall('SET', text.head, n .. ':' .. version, 'PX', text.ttl)\n"
    "end\n"
    "local function begin(at)\n"
    "  text = {head = ARGV[at], base = ARGV[at + 1], n = tonumber(ARGV[at + 2]),\n"
    "    version = ARGV[at + 3], ttl = ARGV[at + 4], left = tonumber(ARGV[at + 5])}\n"
    "  local was = redis.pcall('GET', text.head)\n"
    "  if type(was) == 'table' then return was end\n"
    "  text.old, text.seen = 0, ''\n"
    "  if was then\n"
    "    local old, seen = string.match(was, '^(%d+):(%d*)$')\n"
    "    if not old then return {err = 'WRONGTYPE the key is not a number of chunks'} end\n"
    "    text.old, text.seen = tonumber(old), seen\n"
    "  end\n"
    "  text.had = was\n"
    "  if text.version ~= '' and text.version < text.seen then text.late = true end\n"
    "  if text.version == '' then text.version = text.seen end\n"
    "  if not text.late and text.n > text.old then return put(text.n, text.seen) end\n"
    "end\n"
    "local function finish()\n"
    "  for k = text.n, text.old - 1 do\n"
    "    local gone = redis.pcall('DEL', text.base .. '#' .. k)\n"
    "    if type(gone) == 'table' and string.find(gone.err, 'local key') then return gone end\n"
    "  end\n"
    "  if text.n > 0 or text.version ~= '' then return put(text.n, text.version) end\n"
    "  if text.had then return redis.pcall('DEL', text.head) end\n"
    "end\n"
    "while i <= #ARGV do\n"
    "  local n, reply = tonumber(ARGV[i]), nil\n"
    "  if ARGV[i + 1] == '=' then\n"
    "    local made = redis.pcall('GET', ARGV[i + 2])\n"
    "    if type(made) ~= 'string' or redis.sha1hex(made) ~= ARGV[i + 3] then return -1 end\n"
    "    nth = nth - 1\n"
    "  elseif ARGV[i + 1] == '@' then\n"
    "    reply = begin(i + 2)\n"
    "    if text.late then outdated = outdated + 1 end\n"
    "  else\n"
    "    if not (text and text.late) then reply = redis.pcall(unpack(ARGV, i + 1, i + n)) end\n"
    "    if text then text.left = text.left - 1 end\n"
    "  end\n"
    "  if type(reply) == 'table' and reply.err then return {nth, reply.err} end\n"
    "  if text and text.left == 0 then\n"
    "    reply = not text.late and finish()\n"
    "    if type(reply) == 'table' and reply.err then return {nth, reply.err} end\n"
    "    text = nil\n"
    "  end\n"
    "  i = i + n + 1\n"
    "  nth = nth + 1\n"
    "end\n"
    "if ARGV[1] ~= '' then redis.call('XACK', KEYS[1], ARGV[1], ARGV[3]) end\n"
    "return 1 + outdated\n";

/* Whether an id lies before another one; Lua's numbers do not hold 64 bits. */
#define LESS                                                                                       \
    "local function less(a, b)\n"                                                                  \
    "  local a1, a2 = string.match(a, '(%d+)-(%d+)')\n"                                            \
    "  local b1, b2 = string.match(b, '(%d+)-(%d+)')\n"                                            \
    "  if a1 ~= b1 then return #a1 < #b1 or #a1 == #b1 and a1 < b1 end\n"                          \
    "  return #a2 < #b2 or #a2 == #b2 and a2 < b2\n"                                               \
    "end\n"

const char redis_script_renew[] =
    LESS "local mine = {}\n"
         "local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]\n"
         "if not first then return 0 end\n"
         "for i = 3, #ARGV do\n"
         "  local id = ARGV[i]\n"
         "  if not less(id, first[1]) and\n"
         "    #redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2]) > 0 then\n"
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

const char redis_script_survey[] = LESS
    "local function fields(flat)\n"
    "  local map = {}\n"
    "  for i = 1, #flat, 2 do map[flat[i]] = flat[i + 1] end\n"
    "  return map\n"
    "end\n"
    "local reply = redis.pcall('XINFO', 'STREAM', KEYS[1])\n"
    "if reply.err then return reply end\n"
    "local stream, group = fields(reply), nil\n"
    "reply = redis.pcall('XINFO', 'GROUPS', KEYS[1])\n"
    "if reply.err then return reply end\n"
    "for i = 1, #reply do\n"
    "  local row = fields(reply[i])\n"
    "  if row.name == ARGV[1] then group = row end\n"
    "end\n"
    "if not group then return {} end\n"
    "local added, length = stream['entries-added'] or -1, stream.length\n"
    "local first = stream['first-entry'] and stream['first-entry'][1] or ''\n"
    "local last = stream['last-entry'] and stream['last-entry'][1]\n"
    "local generated, id = stream['last-generated-id'], group['last-delivered-id']\n"
    "local counted, lag = group['entries-read'], group.lag\n"
    "local gone = stream['max-deleted-entry-id'] or '0-0'\n"
    "local function count()\n"
    "  local n, bytes, at = 0, 0, id\n"
    "  while n < 1000 and bytes < 1048576 do\n"
    "    local page = redis.pcall('XRANGE', KEYS[1], '(' .. at, '+', 'COUNT', 20)\n"
    "    if page.err then return nil end\n"
    "    for i = 1, #page do\n"
    "      for j = 1, #page[i][2] do bytes = bytes + #page[i][2][j] end\n"
    "      at = page[i][1]\n"
    "    end\n"
    "    n = n + #page\n"
    "    if #page < 20 then return n end\n"
    "  end\n"
    "end\n"
    "local done = not last or not less(id, last)\n"
    "local gap = last and less(id, first) or not last and less(id, generated)\n"
    "local inside = added >= 0 and not done and not gap and (less(id, gone) or not lag)\n"
    "local waiting = -1\n"
    "if done then waiting = 0\n"
    "elseif gap then waiting = length\n"
    "elseif inside then waiting = count() or -1\n"
    "elseif lag then waiting = math.max(0, math.min(lag, length)) end\n"
    "local lost, most, noted = 0, 0, 1\n"
    "if added >= 0 and waiting >= 0 and (done or gap or inside) then\n"
    "  local position = added - waiting\n"
    "  if not counted and id == '0-0' then counted = 0 end\n"
    "  if not counted and gap then counted, most = 0, 1 end\n"
    "  lost = position - (counted or position)\n"
    "  if lost > 0 or inside and not counted then\n"
    "    reply = redis.pcall('XGROUP', 'SETID', KEYS[1], ARGV[1], id, 'ENTRIESREAD', position)\n"
    "    if type(reply) == 'table' and reply.err then noted = 0 end\n"
    "  end\n"
    "end\n"
    "return {added, length, first, generated, id, waiting, group.pending, lost, most, noted,\n"
    "  inside and gone or ''}\n";
