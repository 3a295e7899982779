-- A job, wholly there or not at all: record, `queued` entry, queue entry, wake-up.
-- KEYS  record, log, arq job, queue, open, jobs, wake, [idempotency]
-- ARGV  job id, queued event JSON, arq payload, created ms, open ttl s, queue limit, list ttl ms, oldest listed ms,
--       idempotency value, idempotency ttl s, tenant ('' none), its submits a minute, its jobs at once (0 no limit),
--       listing ttl s, then record fields: name, value …
-- → {'ok'} | {'exists', value of the idempotency key} | {'full', jobs in the lane} | {'many', the tenant's open jobs} |
--   {'fast', ms until its next submit}
local record, log, arq_job, queue, open, jobs, wake, idem = unpack(KEYS)
local job_id, queued, payload, created, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local tenant, per_minute, at_once, listing_ttl = ARGV[11], tonumber(ARGV[12]), tonumber(ARGV[13]), ARGV[14]
local active = 'lastevent:active:' .. tenant

-- How many jobs the tenant has open. At its limit some of the oldest are looked at: one that expired, or that a worker of an
-- older release ended, is still counted.
local function open_jobs()
  if redis.call('ZCARD', active) < at_once then return redis.call('ZCARD', active) end
  for _, id in ipairs(redis.call('ZRANGE', active, 0, 31)) do
    local status = redis.call('HGET', 'lastevent:job:' .. id, 'status')
    if not status or TERMINAL[status] then redis.call('ZREM', active, id) end
  end
  return redis.call('ZCARD', active)
end

-- Takes one submit off what the tenant has left; else says in how many ms it has one again. The key holds when all of it is
-- back (Unix ms): a minute's submits may come at once, then each takes its share of a minute.
local function charge()
  local rate, now, share = 'lastevent:rate:' .. tenant, now_ms(), 60000 / per_minute
  local full_at = math.max(tonumber(redis.call('GET', rate) or now), now) + share
  local left = full_at - now
  if left > 60000 then return math.ceil(left - 60000) end
  redis.call('SET', rate, string.format('%.3f', full_at), 'PX', math.ceil(left))
  return 0
end

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
if tenant ~= '' and at_once > 0 then
  local has = open_jobs()
  if has >= at_once then return {'many', has} end
end
if tenant ~= '' and per_minute > 0 then  -- last: what is refused is not charged
  local wait = charge()
  if wait > 0 then return {'fast', wait} end
end

redis.call('HSET', record, 'status', 'queued', 'created_ms', created, 'replid', replication_id(), unpack(ARGV, 15))
redis.call('EXPIRE', record, ttl)
redis.call('XADD', log, '0-1', 'e', queued)
redis.call('EXPIRE', log, ttl)
redis.call('SET', arq_job, payload, 'EX', ttl)
redis.call('ZADD', queue, created, job_id)
redis.call('ZADD', open, created, job_id)
redis.call('ZADD', jobs, created, job_id)
redis.call('ZREMRANGEBYSCORE', jobs, '-inf', ARGV[8])
if tenant ~= '' then
  redis.call('EXPIRE', jobs, listing_ttl)
  redis.call('ZADD', active, created, job_id)
  redis.call('EXPIRE', active, listing_ttl)
end
redis.call('LPUSH', wake, '1')
redis.call('LTRIM', wake, 0, 127)  -- a crowd of workers at most; the rest find the jobs when they look
redis.call('PEXPIRE', wake, ARGV[7])
if idem then redis.call('SET', idem, ARGV[9], 'EX', ARGV[10]) end
return {'ok'}
