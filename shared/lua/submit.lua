-- A job, wholly there or not at all: record, `queued` entry, queue entry, wake-up.
-- KEYS  record, log, arq job, queue, open, jobs, wake, [idempotency]
-- ARGV  job id, queued event JSON, arq payload, created ms, open ttl s, queue limit, list ttl ms, oldest listed ms,
--       idempotency value, idempotency ttl s, then record fields: name, value …
-- → {'ok'} | {'exists', value of the idempotency key} | {'full', jobs in the lane}
local record, log, arq_job, queue, open, jobs, wake, idem = unpack(KEYS)
local job_id, queued, payload, created, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

if redis.call('EXISTS', record) == 1 then  -- the same call again, after a lost reply
  touch(record)
  return {'ok'}
end
if idem then
  local before = redis.call('GET', idem)
  -- A job that was forgotten or has expired is submitted anew under its key (protocol P2).
  if before and redis.call('EXISTS', 'lastevent:job:' .. string.match(before, '^%S+')) == 1 then
    touch(idem)
    return {'exists', before}
  end
end
local waiting = redis.call('ZCARD', queue)
if waiting >= tonumber(ARGV[6]) then return {'full', waiting} end

redis.call('HSET', record, 'status', 'queued', 'created_ms', created, 'replid', replication_id(), unpack(ARGV, 11))
redis.call('EXPIRE', record, ttl)
redis.call('XADD', log, '0-1', 'e', queued)
redis.call('EXPIRE', log, ttl)
redis.call('SET', arq_job, payload, 'EX', ttl)
redis.call('ZADD', queue, created, job_id)
redis.call('ZADD', open, created, job_id)
redis.call('ZADD', jobs, created, job_id)
redis.call('ZREMRANGEBYSCORE', jobs, '-inf', ARGV[8])
redis.call('LPUSH', wake, '1')
redis.call('LTRIM', wake, 0, 127)  -- a crowd of workers at most; the rest find the jobs when they look
redis.call('PEXPIRE', wake, ARGV[7])
if idem then redis.call('SET', idem, ARGV[9], 'EX', ARGV[10]) end
return {'ok'}
