/*
 * redis_migration_script.c: see redis_migration_script.h.
 */
#include "connectors/redis/redis_migration_script.h"

const char redis_migration_begin[] =
    "local note = redis.call('GET', KEYS[1]) or ''\n"
    "if string.find(note, 'migrating: yes\\nstep: switching\\n', 1, true) == 1 then\n"
    "  return {note, 1}\n"
    "end\n"
    "redis.call('SET', KEYS[2], ARGV[1])\n"
    "if string.find(note, 'migrating: yes\\nstep: comparing\\n', 1, true) == 1 then\n"
    "  local was = {}\n"
    "  for line in string.gmatch(note, 'was ([^\\n]*\\n)') do was[#was + 1] = line end\n"
    "  note = table.concat(was)\n"
    "  redis.call('SET', KEYS[1], note)\n"
    "end\n"
    "return {note, 0}\n";

const char redis_migration_swap[] =
    "if redis.call('GET', KEYS[2]) ~= ARGV[1] or redis.call('GET', KEYS[1]) ~= ARGV[2] then\n"
    "  return 0\n"
    "end\n"
    "redis.call('SET', KEYS[1], ARGV[3])\n"
    "return 1\n";

/* What there is of a text under a prefix. What is not an output of ours is as if it were not there;
 * but what a cluster has moved to another node already is there, and ends the script. */
#define LOOK                                                                                       \
    "local function ask(...)\n"                                                                    \
    "  local v = redis.pcall(...)\n"                                                               \
    "  if type(v) == 'table' and v.err and string.find(v.err, 'local key') then error(v.err) "     \
    "end\n"                                                                                        \
    "  return v\n"                                                                                 \
    "end\n"                                                                                        \
    "local function value(kind, key)\n"                                                            \
    "  local v\n"                                                                                  \
    "  if kind == 'hash' then v = ask('HGET', key, 'embedding')\n"                                 \
    "  else v = ask('GET', key) end\n"                                                             \
    "  if type(v) ~= 'string' or kind == 'key' and string.find(v, '^%d+:%d*$') then\n"             \
    "    return nil\n"                                                                             \
    "  end\n"                                                                                      \
    "  return v\n"                                                                                 \
    "end\n"                                                                                        \
    "local function head_of(base)\n"                                                               \
    "  local head = redis.pcall('GET', base .. '#')\n"                                             \
    "  if type(head) ~= 'string' then return 0, '' end\n"                                          \
    "  local n, version = string.match(head, '^(%d+):(%d*)$')\n"                                   \
    "  if not n then return 0, '' end\n"                                                           \
    "  return tonumber(n), version\n"                                                              \
    "end\n"                                                                                        \
    "local function look(kind, base)\n"                                                            \
    "  local parent, nth = string.match(base, '^(.*)#(%d+)$')\n"                                   \
    "  if parent and head_of(parent) > tonumber(nth) then return 0, '', {} end\n"                  \
    "  local n, version = head_of(base)\n"                                                         \
    "  local values = {}\n"                                                                        \
    "  if n == 0 then values[1] = value(kind, base)\n"                                             \
    "  else for k = 0, n - 1 do values[k + 1] = value(kind, base .. '#' .. k) or '' end end\n"     \
    "  return n, version, values\n"                                                                \
    "end\n"

const char redis_migration_read[] =
    LOOK "local out = {}\n"
         "for i = 3, #ARGV do\n"
         "  local n, version, values = look(ARGV[2], ARGV[1] .. ARGV[i])\n"
         "  out[#out + 1] = {version, n, values}\n"
         "end\n"
         "return out\n";

const char redis_migration_compare[] =
    LOOK "local out = {}\n"
         "local function is_of_others(key)\n"
         "  local is = redis.call('TYPE', key).ok\n"
         "  return is ~= 'none' and is ~= (ARGV[3] == 'hash' and 'hash' or 'string')\n"
         "end\n"
         "local function is_taken(base, n, has_head)\n"
         "  local head = has_head and ask('GET', base .. '#')\n"
         "  if head and (type(head) ~= 'string' or not string.find(head, '^%d+:%d*$')) then\n"
         "    return true\n"
         "  end\n"
         "  for k = 0, n - 1 do\n"
         "    if is_of_others(base .. '#' .. k) then return true end\n"
         "  end\n"
         "  return is_of_others(base)\n"
         "end\n"
         "for i = 5, #ARGV do\n"
         "  local base, side = ARGV[1] .. ARGV[i], ARGV[2] .. ARGV[i]\n"
         "  local n, version, values = look(ARGV[3], base)\n"
         "  local digest = ''\n"
         "  if #values > 0 then\n"
         "    local all = {version, tostring(n)}\n"
         "    for k = 1, #values do all[k + 2] = redis.sha1hex(values[k]) end\n"
         "    digest = redis.sha1hex(table.concat(all, ' '))\n"
         "  end\n"
         "  local side_n, side_version, side_values = look(ARGV[3], side)\n"
         "  for k = 1, #side_values do if side_values[k] == '' then side_values = {} end end\n"
         "  local life = redis.call('PTTL', n == 0 and base or base .. '#0')\n"
         "  if #values == 0 then life = tonumber(ARGV[4]) end\n"
         "  if life > 0 then\n"
         "    redis.call('PEXPIRE', side, life)\n"
         "    redis.call('PEXPIRE', side .. '#', life)\n"
         "    for k = 0, side_n - 1 do redis.call('PEXPIRE', side .. '#' .. k, life) end\n"
         "  end\n"
         "  local has_head = side_n > 0 or version ~= '' or side_version ~= ''\n"
         "  local taken = #side_values > 0 and is_taken(base, side_n, has_head)\n"
         "  out[#out + 1] = {digest, version, #side_values, side_version, taken and 1 or 0}\n"
         "end\n"
         "return out\n";

const char redis_migration_drop[] =
    LOOK "for i = 2, #ARGV do\n"
         "  local base = ARGV[1] .. ARGV[i]\n"
         "  for k = 0, head_of(base) - 1 do redis.call('DEL', base .. '#' .. k) end\n"
         "  redis.call('DEL', base, base .. '#')\n"
         "end\n"
         "return 1\n";

/* The journal is a set of the ids that are not moved yet. A text that is in it and not, or not
 * whole, on the side was deleted there: nothing of it is moved. One that is in neither place has
 * expired since they were compared, for both have the same life, and is done with. The field id of
 * a hash on the side is a place in the corpus, and not to overwrite what others have in theirs. */
const char redis_migration_move[] = LOOK
    "if string.find(redis.call('GET', KEYS[1]) or '', ARGV[1], 1, true) ~= 1 then return 0 end\n"
    "local kind = ARGV[4]\n"
    "local function put(key, fields)\n"
    "  for at = 1, #fields, 1000 do\n"
    "    redis.call('HSET', key, unpack(fields, at, math.min(at + 999, #fields)))\n"
    "  end\n"
    "end\n"
    "local ours = {embedding = 1, parent = 1, chunk = 1, start = 1, ['end'] = 1}\n"
    "local function others_of(key)\n"
    "  local all, others = ask('HGETALL', key), {}\n"
    "  for at = 1, all.err and 0 or #all, 2 do\n"
    "    if not ours[all[at]] then\n"
    "      others[#others + 1] = all[at]\n"
    "      others[#others + 1] = all[at + 1]\n"
    "    end\n"
    "  end\n"
    "  return others\n"
    "end\n"
    "local function move(from, to, others)\n"
    "  if kind == 'key' then return redis.call('RENAME', from, to) end\n"
    "  local life = redis.call('PTTL', from)\n"
    "  if redis.call('EXISTS', to) == 0 then put(to, others) end\n"
    "  put(to, redis.call('HGETALL', from))\n"
    "  if life > 0 then redis.call('PEXPIRE', to, life) end\n"
    "  redis.call('DEL', from)\n"
    "end\n"
    "local function is_gone(values)\n"
    "  for k = 1, #values do if values[k] ~= '' then return false end end\n"
    "  return true\n"
    "end\n"
    "for i = 5, #ARGV do\n"
    "  local id = ARGV[i]\n"
    "  local base, side = ARGV[2] .. ARGV[i], ARGV[3] .. ARGV[i]\n"
    "  local n, version, olds = look(kind, base)\n"
    "  local side_n, side_version, values = look(kind, side)\n"
    "  if is_gone(olds) and is_gone(values) then\n"
    "    redis.call('DEL', side .. '#')\n"
    "    redis.call('SREM', KEYS[2], id)\n"
    "  end\n"
    "  if redis.call('SISMEMBER', KEYS[2], id) == 1 then\n"
    "    if #values == 0 then return id end\n"
    "    for k = 1, #values do if values[k] == '' then return id end end\n"
    "    local first = side_n == 0 and side or side .. '#0'\n"
    "    local life, others = redis.call('PTTL', first), {}\n"
    "    if kind == 'hash' then\n"
    "      others = others_of(n == 0 and base or base .. '#0')\n"
    "      if side_n == 0 then redis.call('HDEL', side, 'id') end\n"
    "      for k = 0, side_n - 1 do redis.call('HDEL', side .. '#' .. k, 'id') end\n"
    "    end\n"
    "    if side_n == 0 then\n"
    "      move(side, base, others)\n"
    "    else\n"
    "      if kind == 'key' then redis.call('DEL', base)\n"
    "      else redis.call('HDEL', base, 'embedding', unpack(redis.call('HKEYS', first))) end\n"
    "      for k = 0, side_n - 1 do move(side .. '#' .. k, base .. '#' .. k, others) end\n"
    "    end\n"
    "    for k = side_n, n - 1 do redis.call('DEL', base .. '#' .. k) end\n"
    "    local head = ask('GET', base .. '#')\n"
    "    local is_head = type(head) == 'string' and string.find(head, '^%d+:%d*$')\n"
    "    if side_version > version then version = side_version end\n"
    "    if side_n == 0 and version == '' then\n"
    "      if is_head then redis.call('DEL', base .. '#') end\n"
    "    elseif life > 0 then\n"
    "      redis.call('SET', base .. '#', side_n .. ':' .. version, 'PX', life)\n"
    "    else redis.call('SET', base .. '#', side_n .. ':' .. version) end\n"
    "    redis.call('DEL', side .. '#')\n"
    "    redis.call('SREM', KEYS[2], id)\n"
    "  end\n"
    "end\n"
    "return 1\n";

const char redis_migration_leave[] =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end\n"
    "return 1\n";

const char redis_migration_end[] = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end\n"
                                   "redis.call('SET', KEYS[1], ARGV[2])\n"
                                   "redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])\n"
                                   "return 1\n";
