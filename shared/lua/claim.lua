-- Makes the holder of a lease the owner of a job's next attempt and writes its `started` entry.
-- KEYS  record, log, in-progress, primary
-- ARGV  token, worker, the log's last id as the claimer read it, open ttl s, lease ms, reset (1 | 0),
--       started event JSON after `attempt`, `after`, `reason`, `reset`; private JSON,
--       solitude ('' | alone | waits), the job that runs alone no more because of this one ('' none)
-- → {'ok', attempt, reason} | {'moved'} read the log again | {'wait', ms} the owner may yet live | {'lost'} the lease is
--   another's | {'ended'} | {'gone'} | {'cancelled'} asked for before the claim
local record, log, in_progress, primary = unpack(KEYS)
local token, worker, seen, ttl, lease, reset = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6] == '1'

local status, owner, counter, handover, fallback, cancel, stored_replid, was =
  unpack(redis.call('HMGET', record, 'status', 'owner', 'attempt', 'handover', 'fallback', 'cancel', 'replid', 'solitude'))
if not status then return {'gone'} end
if TERMINAL[status] then return {'ended'} end
if owner == token then  -- the same call again, after a lost reply
  return {'ok', tonumber(counter), redis.call('HGET', record, 'reason')}
end
if redis.call('GET', in_progress) ~= token then return {'lost'} end
if cancel then return {'cancelled'} end
local last = last_id(log)
if not last then return {'gone'} end
if last ~= seen then return {'moved'} end

local replid, since = primary_since(primary)
local reason = 'first'
if fallback then
  reason = 'fallback'
elseif handover then
  reason = 'handover'
elseif status == 'running' then
  reason = 'takeover'
  local left = since + lease - now_ms()
  if owner and left > 0 then return {'wait', left} end
end

local attempt = next_attempt(counter, last, stored_replid, replid)
local id, number = id_of(attempt, 0), string.format('%.0f', attempt)
if reason == 'first' then reset = false end
local started = started_json(attempt, last, reason, reset, ARGV[7])

redis.call('XADD', log, 'NOMKSTREAM', id, 'e', started, 'p', ARGV[8])
redis.call('HSET', record, 'status', 'running', 'owner', token, 'worker', worker, 'attempt', number, 'reason', reason, 'replid', replid)
redis.call('HSETNX', record, 'started_at', string.format('%.3f', now_ms() / 1000))
redis.call('HDEL', record, 'handover', 'fallback', 'before')
if reason == 'takeover' and was ~= 'waits' then  -- a job that did not run yet killed nobody
  redis.call('HINCRBY', record, 'losses', 1)
  if was == 'alone' then redis.call('HINCRBY', record, 'lost_alone', 1) end
end
if ARGV[9] == '' then redis.call('HDEL', record, 'solitude') else redis.call('HSET', record, 'solitude', ARGV[9]) end
-- In this same step: were the worker to die in between, that job would be charged for what this one did.
if ARGV[10] ~= '' then redis.call('HDEL', 'lastevent:job:' .. ARGV[10], 'solitude') end
redis.call('EXPIRE', record, ttl)
redis.call('EXPIRE', log, ttl)
push(log, last, id, 1, false, frame(id, started))
return {'ok', attempt, reason}
