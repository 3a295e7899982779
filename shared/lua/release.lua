-- Gives a lease back, if it is still the caller's: the job is done with here, to be looked at again, or handed over.
-- KEYS  record, queue, in-progress, wake
-- ARGV  job id, token, score: when to look at it again, Unix ms ('' when it has ended: queue entry and arq's keys go),
--       hand over (1 | 0): the record's owner steps down, another worker is woken, and the job's age is its score; list ttl ms
-- → 'ok' | 'lost'
local record, queue, in_progress, wake = unpack(KEYS)
local job_id, token, score, handover = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local status, owner, created_ms = unpack(redis.call('HMGET', record, 'status', 'owner', 'created_ms'))
local holds = redis.call('GET', in_progress) == token
if holds then redis.call('DEL', in_progress) end
if holds or owner == token then redis.call('ZREM', leased_of(queue), job_id) end
if not status or TERMINAL[status] then
  -- Whoever comes by last clears up, the lease's holder or not.
  redis.call('ZREM', queue, job_id)
  redis.call('DEL', 'arq:job:' .. job_id)
  return holds and 'ok' or 'lost'
end
if not holds and owner ~= token then return 'lost' end
if score == '' then return 'ok' end
-- Handed over, it keeps the place that its age gives it: its readers do not wait behind what was submitted after it.
redis.call('ZADD', queue, handover and created_ms or score, job_id)
if handover then
  if owner == token then
    redis.call('HDEL', record, 'owner')
    redis.call('HSET', record, 'handover', '1')
  end
  redis.call('LPUSH', wake, '1')
  redis.call('PEXPIRE', wake, ARGV[5])
end
return 'ok'
