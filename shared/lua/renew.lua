-- Renews all of one worker's leases. An owner whose token still stands in the record may renew even after its lease lapsed,
-- as long as no other has claimed: that is how jobs live through an outage of Redis.
-- The worker itself is announced in the same step.
-- KEYS  queue, primary, worker, workers
-- ARGV  lease ms, ttl s (0: leave the TTLs alone), worker id, its JSON, then for each job: job id, token
-- → for each job: 'ok' | 'cancel' (kept, and a cancel was asked for) | 'lost'
local queue, primary, worker, workers = unpack(KEYS)
local leased = leased_of(queue)
local lease, ttl = tonumber(ARGV[1]), tonumber(ARGV[2])
primary_since(primary)
local now = now_ms()
redis.call('SET', worker, ARGV[4], 'PX', lease)
redis.call('ZADD', workers, now + lease, ARGV[3])
redis.call('ZREMRANGEBYSCORE', workers, '-inf', now - 10 * lease)
local answers = {}
for i = 5, #ARGV, 2 do
  local job_id, token = ARGV[i], ARGV[i + 1]
  local record, in_progress = 'lastevent:job:' .. job_id, 'arq:in-progress:' .. job_id
  local status, owner, cancel = unpack(redis.call('HMGET', record, 'status', 'owner', 'cancel'))
  if status and not TERMINAL[status] and (owner == token or redis.call('GET', in_progress) == token) then
    redis.call('SET', in_progress, token, 'PX', lease)
    redis.call('ZADD', queue, now + lease, job_id)
    redis.call('ZADD', leased, now + lease, job_id)
    if ttl > 0 then
      redis.call('EXPIRE', record, ttl)
      redis.call('EXPIRE', 'lastevent:log:' .. job_id, ttl)
      redis.call('EXPIRE', 'arq:job:' .. job_id, ttl)
    end
    answers[#answers + 1] = cancel and 'cancel' or 'ok'
  else
    answers[#answers + 1] = 'lost'
  end
end
return answers
