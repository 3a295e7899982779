-- Leases up to `slots` due jobs of a lane to one worker, in one round trip: arq polls with four calls a job.
-- A leased job's score is moved past now, so that running jobs leave the window that idle workers scan. One whose lease lapsed
-- comes before all that wait: its readers have begun to read (protocol P4).
-- KEYS  queue
-- ARGV  token prefix, slots, lease ms
-- → job id, token, score before … for each job taken
local queue, prefix, slots, lease = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local leased = leased_of(queue)
local now = now_ms()
local taken, free = {}, slots

local function take(job_id, score)
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
  taken[#taken + 1] = job_id
  taken[#taken + 1] = token
  taken[#taken + 1] = score
end

-- Twice the slots, here and below: some of the due ones may turn out to be leased already, and then only have their score mended.
for _, job_id in ipairs(redis.call('ZRANGEBYSCORE', leased, '-inf', now, 'LIMIT', 0, slots * 2)) do
  if free == 0 then break end
  local score = redis.call('ZSCORE', queue, job_id)
  if score and tonumber(score) <= now then
    take(job_id, score)
  else
    redis.call('ZREM', leased, job_id)  -- a failover may have kept the one and lost the other
  end
end
if free > 0 then
  local due = redis.call('ZRANGEBYSCORE', queue, '-inf', now, 'WITHSCORES', 'LIMIT', 0, slots * 2)
  for i = 1, #due, 2 do
    if free == 0 then break end
    take(due[i], due[i + 1])
  end
end
return taken
