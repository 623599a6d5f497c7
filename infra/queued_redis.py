"""Work that is done later, in a Redis: each step is one script, so that it is done at once or not at all.

All keys share one hash slot: a cluster keeps them on one shard. Times are Redis's own.

| key | what |
|---|---|
| ID | one piece of work: a letter for its state, since when (seconds, 14 characters), its data; forgotten by itself |
| queue | ids of what waits, the oldest last |
| ends | id by when it is forgotten, milliseconds |
| bytes | id -> bytes that it has; all: their sum |
"""

import secrets
from typing import Any

from infra.live_stream import Link
from infra.queued_work import BESIDE_BYTES, DONE, ID_BYTES, QUEUED, TAKEN, Bounds, Work
from infra.redis_connection import explained, shown

PREFIX = "{pymk:work}:"
AT_ONCE = 1000
"""What one call forgets, at most."""
SINCE = slice(1, 15)
_STATES = {b"q": QUEUED, b"t": TAKEN, b"d": DONE}

_PARTS = f"""
local prefix, time = KEYS[1], redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local all_bytes, ends, queue = prefix .. 'bytes', prefix .. 'ends', prefix .. 'queue'

local function marked(state, data)
  return state .. string.format('%014.3f', now_ms / 1000) .. data
end

local function kept(id, bytes, life_ms)
  local before = tonumber(redis.call('HGET', all_bytes, id) or '0')
  redis.call('HINCRBY', all_bytes, 'all', bytes - before)
  redis.call('HSET', all_bytes, id, bytes)
  redis.call('ZADD', ends, now_ms + life_ms, id)
end

local function forget()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', now_ms, 'LIMIT', 0, {AT_ONCE})) do
    redis.call('HINCRBY', all_bytes, 'all', -tonumber(redis.call('HGET', all_bytes, id) or '0'))
    redis.call('HDEL', all_bytes, id)
    redis.call('ZREM', ends, id)
    redis.call('DEL', prefix .. id)
  end
  for _ = 1, {AT_ONCE} do
    local oldest = redis.call('LINDEX', queue, -1)
    if not oldest or redis.call('EXISTS', prefix .. oldest) == 1 then return end
    redis.call('RPOP', queue)
  end
end
"""
PUT = f"""{_PARTS}
local id, data, bytes, life_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
forget()
if redis.call('LLEN', queue) >= tonumber(ARGV[5]) then return 0 end
if tonumber(redis.call('HGET', all_bytes, 'all') or '0') + bytes > tonumber(ARGV[6]) then return 0 end
redis.call('SET', prefix .. id, marked('q', data), 'PX', life_ms)
kept(id, bytes, life_ms)
redis.call('LPUSH', queue, id)
return 1
"""
TAKE = f"""{_PARTS}
forget()
local id = redis.call('LINDEX', queue, -1)
local value = id and redis.call('GET', prefix .. id)
if not value then return false end
local data = string.sub(value, {SINCE.stop + 1})
redis.call('RPOP', queue)
redis.call('SET', prefix .. id, marked('t', data), 'KEEPTTL')
return {{id, data}}
"""
PUT_BACK = f"""{_PARTS}
local id, data, left_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
if redis.call('GETRANGE', prefix .. id, 0, 0) ~= 't' or redis.call('PTTL', prefix .. id) <= left_ms then return 0 end
redis.call('SET', prefix .. id, marked('q', data), 'KEEPTTL')
redis.call('LPUSH', queue, id)
return 1
"""
FINISH = f"""{_PARTS}
local id, result, life_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
if redis.call('EXISTS', prefix .. id) == 0 then return 0 end
redis.call('SET', prefix .. id, marked('d', result), 'PX', life_ms)
kept(id, #result + {BESIDE_BYTES}, life_ms)
return 1
"""
GET = f"""{_PARTS}
local value = redis.call('GET', prefix .. ARGV[1])
return value and {{value, tostring(now_ms / 1000)}}
"""
CLEAR = f"""{_PARTS}
local ids = redis.call('ZRANGE', ends, 0, {AT_ONCE - 1})
for _, id in ipairs(ids) do
  redis.call('DEL', prefix .. id)
  redis.call('HINCRBY', all_bytes, 'all', -tonumber(redis.call('HGET', all_bytes, id) or '0'))
  redis.call('HDEL', all_bytes, id)
  redis.call('ZREM', ends, id)
end
if #ids == 0 then redis.call('DEL', all_bytes, queue) end
return #ids
"""


class RedisQueue:
    """See QueuedWork. A cluster's nodes are learnt when one is first asked."""

    def __init__(self, uri: str, bounds: Bounds, timeout_s: float) -> None:
        self._shown = shown(uri)
        self._bounds = bounds
        self._life_ms = int(bounds.life_s * 1000)
        self._link = Link(uri, timeout_s)

    def put(self, data: bytes, room_bytes: int = 0) -> str | None:
        work_id, size = secrets.token_hex(ID_BYTES), max(len(data), room_bytes) + BESIDE_BYTES
        bounds = self._bounds
        done = self._run(PUT, work_id, data, size, self._life_ms, bounds.waiting, bounds.kept_bytes)
        return work_id if done else None

    def take(self) -> tuple[str, bytes] | None:
        found = self._run(TAKE)
        return None if found is None else (found[0].decode(), found[1])

    def put_back(self, work_id: str, data: bytes, left_s: float) -> bool:
        return bool(self._run(PUT_BACK, work_id, data, int(left_s * 1000)))

    def finish(self, work_id: str, result: bytes) -> None:
        self._run(FINISH, work_id, result, self._life_ms)

    def get(self, work_id: str) -> Work | None:
        found = self._run(GET, work_id)
        if found is None:
            return None
        value, now = found
        return Work(_STATES[value[:1]], float(now) - float(value[SINCE]), value[SINCE.stop :])

    def clear(self) -> int:
        gone = 0
        while some := int(self._run(CLEAR)):
            gone += some
        return gone

    def close(self) -> None:
        self._link.close()

    def _run(self, script: str, *values: str | bytes | int) -> Any:
        with explained(self._shown):
            return self._link.client.eval(script, 1, PREFIX, *values)
