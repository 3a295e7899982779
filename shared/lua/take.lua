-- Leases up to `slots` due jobs of a lane to one worker, in one round trip: arq polls with four calls a job.
-- A leased job's score is moved past now, so that running jobs leave the window that idle workers scan.
-- KEYS  queue
-- ARGV  token prefix, slots, lease ms
-- → job id, token, score before … for each job taken
local queue, prefix, slots, lease = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now = now_ms()
local taken, free = {}, slots
-- Twice the slots: some of the due ones may turn out to be leased already, and then only have their score mended.
local due = redis.call('ZRANGEBYSCORE', queue, '-inf', now, 'WITHSCORES', 'LIMIT', 0, slots * 2)
for i = 1, #due, 2 do
  if free == 0 then break end
  local job_id, in_progress = due[i], 'arq:in-progress:' .. due[i]
  local token = prefix .. ':' .. job_id
  local left = redis.call('PTTL', in_progress)
  if left > 0 then
    redis.call('ZADD', queue, 'XX', now + left, job_id)
  else
    redis.call('SET', in_progress, token, 'PX', lease)
    redis.call('ZADD', queue, 'XX', now + lease, job_id)
    free = free - 1
    taken[#taken + 1] = job_id
    taken[#taken + 1] = token
    taken[#taken + 1] = due[i + 1]
  end
end
return taken
