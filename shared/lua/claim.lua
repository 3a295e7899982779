-- Makes the holder of a lease the owner of a job's next attempt and writes its `started` entry.
-- KEYS  record, log, in-progress, primary
-- ARGV  token, worker, the log's last id as the claimer read it, open ttl s, lease ms, reset (1 | 0),
--       started event JSON after `attempt`, `after`, `reason`, `reset`; private JSON,
--       solitude ('' | alone | waits), the job that runs alone no more because of this one ('' none);
--       the record's upstream as the claimer read it ('' for none), read it on (1 | 0): else it is left to be cancelled
-- → {'ok', attempt, reason} | {'moved'} read the log again | {'wait', ms} the owner may yet live | {'lost'} the lease is
--   another's | {'ended'} | {'gone'} | {'cancelled'} asked for before the claim
local record, log, in_progress, primary = unpack(KEYS)
local token, worker, seen, ttl, lease, reset = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6] == '1'
local seen_upstream, read_on = ARGV[11], ARGV[12] == '1'

local status, owner, counter, handover, fallback, cancel, stored_replid, upstream, lane = unpack(redis.call('HMGET', record,
  'status', 'owner', 'attempt', 'handover', 'fallback', 'cancel', 'replid', 'upstream', 'lane'))
if not status then return {'gone'} end
if TERMINAL[status] then return {'ended'} end
if owner == token then  -- the same call again, after a lost reply
  return {'ok', tonumber(counter), redis.call('HGET', record, 'reason')}
end
if redis.call('GET', in_progress) ~= token then return {'lost'} end
if cancel then return {'cancelled'} end
local last = last_id(log)
if not last then return {'gone'} end
if last ~= seen or (upstream or '') ~= seen_upstream then return {'moved'} end

local replid, since = primary_since(primary)
local left = since + lease - now_ms()
local reason = 'first'
if fallback then
  reason = 'fallback'
elseif handover then
  reason = 'handover'
elseif status == 'running' then
  reason = 'takeover'
end
-- A living owner gets its lease after an outage. So does one whose claim this primary never saw: it may put it back.
local unseen = stored_replid and stored_replid ~= replid
if left > 0 and (unseen or (owner and reason == 'takeover')) then return {'wait', left} end

local attempt = next_attempt(counter, last, stored_replid, replid)
if reason == 'first' then reset = false end
start(record, log, token, worker, attempt, last, reason, reset, ARGV[7], ARGV[8], ARGV[9], ARGV[10])
if not read_on then leave_upstream(record, lane) end
redis.call('HSET', record, 'replid', replid)
redis.call('HSETNX', record, 'started_at', string.format('%.3f', now_ms() / 1000))
redis.call('EXPIRE', record, ttl)
redis.call('EXPIRE', log, ttl)
return {'ok', attempt, reason}
