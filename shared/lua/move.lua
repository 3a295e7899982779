-- The owner gives its job to another lane, for a fallback model that runs there.
-- KEYS  record, queue here, queue there, open here, open there, wake there
-- ARGV  job id, token, lane there, fallback model, how the failed attempt ended JSON, list ttl ms
-- → 'ok' | 'superseded' | 'ended' | 'gone'
local record, queue, queue_there, open, open_there, wake = unpack(KEYS)
local job_id, token, lane = ARGV[1], ARGV[2], ARGV[3]
local owner, created_ms, here = unpack(redis.call('HMGET', record, 'owner', 'created_ms', 'lane'))
if owner ~= token then
  return here == lane and redis.call('HGET', record, 'fallback') == ARGV[4] and 'ok' or refusal(record)  -- the same call again
end

leave_upstream(record, here)
redis.call('HSET', record, 'lane', lane, 'fallback', ARGV[4], 'before', ARGV[5])
redis.call('HDEL', record, 'owner')
redis.call('DEL', 'arq:in-progress:' .. job_id)
redis.call('ZREM', queue, job_id)
redis.call('ZREM', leased_of(queue), job_id)
redis.call('ZREM', open, job_id)
redis.call('ZADD', queue_there, now_ms(), job_id)
redis.call('ZADD', open_there, created_ms, job_id)
redis.call('LPUSH', wake, '1')
redis.call('PEXPIRE', wake, ARGV[6])
return 'ok'
