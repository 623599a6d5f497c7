"""What Redis itself does with live facts, in Lua, so that an event is stored, known and logged at once or not at all.

All keys share one hash slot: a cluster keeps them on one shard. Times are whole numbers below 2^53, which Lua's floats
hold exactly; ids stay text.

| key | what |
|---|---|
| head | last: number of the newest event; changed, erased: numbers of the last changes of who is hidden; born: drawn
  with the first event, so that another history is told from this one; asked: drawn by the last request that waited for
  replicas |
| events | the log, a stream: type, user, other, at, position, key of the event id, number, and model where told |
| id:KEY | digest of the event stored under that id |
| viewer:ID | `relation:other` -> `at:value`; v: number of the last event that may have changed whom they may see |
| people | person -> for each state when it was last changed, and whether it holds |
| changed | person by the number of the last change |
| erased | person -> when |
| exports | last exported entry, by when it was exported |
"""

from infra.live_records import DISMISSAL, MOST_RECORDS, MOST_SHOWN, SHOWN

PREFIX = "{pymk:live}:"
_NUMBER = """
local function next_number(prefix)
  local time, last = redis.call('TIME'), tonumber(redis.call('HGET', prefix .. 'head', 'last') or '0')
  local number = string.format('%.0f', math.max(last + 1, time[1] * 1000000 + time[2]))
  redis.call('HSET', prefix .. 'head', 'last', number)
  return number
end
"""
"""Numbers ascend, and are no less than the time: a Redis that lost its latest events (restarted, or a replica that took
over) gives none of theirs again, of which readers think that they know what it stands for."""

RECORD = f"""{_NUMBER}
local prefix, events, fatigue_us = KEYS[1], cjson.decode(ARGV[1]), tonumber(ARGV[2])
local SHOWN = {SHOWN}
local refused = {{}}

local function merged(old_at, old_value, relation, at, value)
  if not old_at then return at, value end
  if relation ~= SHOWN then
    if at > old_at or (at == old_at and value > old_value) then return at, value end
    return old_at, old_value
  end
  if value == 0 then
    if at >= old_at then return at, 0 end
    return old_at, old_value
  end
  if old_value == 0 and at <= old_at then return old_at, old_value end
  if at - old_at > fatigue_us then return at, value end
  return math.max(old_at, at), math.min(old_value + 1, {MOST_SHOWN})
end

local function forget_shown(key)
  local found, shown = redis.call('HGETALL', key), {{}}
  for i = 1, #found, 2 do
    if string.sub(found[i], 1, 2) == SHOWN .. ':' then
      shown[#shown + 1] = {{found[i], tonumber(string.match(found[i + 1], '^(%d+):'))}}
    end
  end
  table.sort(shown, function(a, b) return a[2] < b[2] end)
  for i = 1, math.floor(#shown / 2) do redis.call('HDEL', key, shown[i][1]) end
end

local function change(number, viewer, other, relation, at, value)
  local key, field = prefix .. 'viewer:' .. viewer, relation .. ':' .. other
  local found = redis.call('HGET', key, field)
  local old_at, old_value
  if found then
    local a, v = string.match(found, '^(%d+):(%d+)$')
    old_at, old_value = tonumber(a), tonumber(v)
  end
  local new_at, new_value = merged(old_at, old_value, relation, at, value)
  if new_at == old_at and new_value == old_value then return end
  redis.call('HSET', key, field, string.format('%.0f:%d', new_at, new_value))
  if relation ~= SHOWN then
    redis.call('HSET', key, 'v', number)
  elseif redis.call('HLEN', key) > {MOST_RECORDS} then
    forget_shown(key)
  end
end

local function change_state(number, person, place, restricts, at)
  local found = redis.call('HGET', prefix .. 'people', person)
  local values = found and cjson.decode(found) or {{0, 0, 0, 0, 0, 0}}
  local old_at, held = values[2 * place + 1], values[2 * place + 2]
  if found and (at < old_at or (at == old_at and restricts <= held)) then return end
  values[2 * place + 1], values[2 * place + 2] = at, restricts
  for i = 1, #values do values[i] = string.format('%.0f', values[i]) end
  redis.call('HSET', prefix .. 'people', person, '[' .. table.concat(values, ',') .. ']')
  redis.call('ZADD', prefix .. 'changed', number, person)
  redis.call('HSET', prefix .. 'head', 'changed', number)
end

redis.call('HSETNX', prefix .. 'head', 'born', ARGV[3])
for index, event in ipairs(events) do
  local id_key = prefix .. 'id:' .. event.key
  local known = redis.call('GET', id_key)
  local gone = redis.call('HEXISTS', prefix .. 'erased', event.user) == 1
    or (event.other ~= '' and redis.call('HEXISTS', prefix .. 'erased', event.other) == 1)
  if known then
    if known ~= event.content then refused[#refused + 1] = {{index - 1, 'reused'}} end
  elseif gone then
    refused[#refused + 1] = {{index - 1, 'erased'}}
  else
    local number = next_number(prefix)
    redis.call('SET', id_key, event.content)
    local fields = {{'type', event.type, 'user', event.user, 'other', event.other, 'at', event.at,
      'position', event.position, 'key', event.key, 'number', number}}
    if event.model then fields[#fields + 1], fields[#fields + 2] = 'model', event.model end
    redis.call('XADD', prefix .. 'events', '*', unpack(fields))
    local at = tonumber(event.at)
    for _, c in ipairs(event.changes) do change(number, c[1], c[2], c[3], at, c[4]) end
    if event.state then change_state(number, event.user, event.state[1], event.state[2], at) end
  end
end
return cjson.encode(refused)
"""
"""KEYS: the prefix. ARGV: events as JSON, microseconds for which a showing is remembered, a random text.

Returns [[index, why], …].
"""

BAR = f"""{_NUMBER}
local prefix, person, at = KEYS[1], ARGV[1], ARGV[2]
redis.call('HSETNX', prefix .. 'head', 'born', ARGV[3])
redis.call('HSETNX', prefix .. 'erased', person, at)
local number = next_number(prefix)
redis.call('HSET', prefix .. 'head', 'erased', number)
local state = redis.call('HDEL', prefix .. 'people', person)
redis.call('ZREM', prefix .. 'changed', person)
redis.call('DEL', prefix .. 'queue')  -- of earlier versions; nothing reads it
return state
"""
"""KEYS: the prefix. ARGV: person, at, a random text. From here on nothing new of the person is stored.

Returns the rows removed from people.
"""

FORGET_EXPIRED = f"""
local after, gone = {{['{DISMISSAL}'] = tonumber(ARGV[1]), ['{SHOWN}'] = tonumber(ARGV[2])}}, 0
for _, key in ipairs(KEYS) do
  local found = redis.call('HGETALL', key)
  for i = 1, #found, 2 do
    local limit = after[string.match(found[i], '^(%d+):') or '']
    if limit and tonumber(string.match(found[i + 1], '^(%d+):')) < limit then
      gone = gone + redis.call('HDEL', key, found[i])
    end
  end
end
return gone
"""
"""KEYS: viewers. ARGV: times from which dismissals and showings still count. Returns how many were forgotten."""
