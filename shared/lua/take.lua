-- Leases up to `slots` due jobs of a lane to one worker, in one round trip: arq polls with four calls a job.
-- A leased job's score is moved past now, so that running jobs leave the window that idle workers scan. One whose lease lapsed
-- comes before all that wait: its readers have begun to read (protocol P4).
-- KEYS  queue
-- ARGV  token prefix, slots, lease ms
-- → for each job taken: {job id, token, arq's payload ('' none), record, log}; the last two as HGETALL and XRANGE have them where
--   nobody has started it yet, so that its claim needs no look of its own, else empty: a log may be long
local queue, prefix, slots, lease = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local leased = leased_of(queue)
local now = now_ms()
local taken, free = {}, slots

local function take(job_id)
  local in_progress = 'arq:in-progress:' .. job_id
  local left = redis.call('PTTL', in_progress)
  if left > 0 then
    redis.call('ZADD', queue, 'XX', now + left, job_id)
    redis.call('ZADD', leased, now + left, job_id)
    return
  end
  local token = prefix .. ':' .. job_id
  redis.call('SET', in_progress, token, 'PX', lease)
  redis.call('ZADD', queue, 'XX', now + lease, job_id)
  redis.call('ZADD', leased, now + lease, job_id)
  free = free - 1
  local record, fields, entries = 'lastevent:job:' .. job_id, {}, {}
  if redis.call('HGET', record, 'status') == 'queued' then
    fields = redis.call('HGETALL', record)
    entries = redis.call('XRANGE', 'lastevent:log:' .. job_id, '-', '+')
  end
  taken[#taken + 1] = {job_id, token, redis.call('GET', 'arq:job:' .. job_id) or '', fields, entries}
end

-- Twice the slots, here and below: some of the due ones may turn out to be leased already, and then only have their score mended.
for _, job_id in ipairs(redis.call('ZRANGEBYSCORE', leased, '-inf', now, 'LIMIT', 0, slots * 2)) do
  if free == 0 then break end
  local score = redis.call('ZSCORE', queue, job_id)
  if score and tonumber(score) <= now then
    take(job_id)
  else
    redis.call('ZREM', leased, job_id)  -- a failover may have kept the one and lost the other
  end
end
if free > 0 then
  for _, job_id in ipairs(redis.call('ZRANGEBYSCORE', queue, '-inf', now, 'LIMIT', 0, slots * 2)) do
    if free == 0 then break end
    take(job_id)
  end
end
return taken
