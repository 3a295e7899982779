-- The owner's next attempt, after the one it had failed: a retry, or a fallback in the same lane.
-- KEYS  record, log
-- ARGV  token, the attempt that failed, the log's last id as the owner left it, open ttl s, reason (retry | fallback),
--       reset (1 | 0), started event JSON after `attempt`, `after`, `reason`, `reset`; private JSON;
--       read the response upstream on (1 | 0): else it is left to be cancelled
-- → {'ok', attempt} | {'cancelled'} asked for meanwhile | {'superseded'} | {'ended'} | {'gone'} | {'behind', the log's last id}
local record, log = KEYS[1], KEYS[2]
local token, failed, seen, ttl, reason, reset = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5], ARGV[6] == '1'

local read_on = ARGV[9] == '1'

local owner, counter, cancel, stored_replid, lane =
  unpack(redis.call('HMGET', record, 'owner', 'attempt', 'cancel', 'replid', 'lane'))
if owner ~= token then return {refusal(record)} end
if tonumber(counter) > failed then return {'ok', tonumber(counter)} end  -- the same call again, after a lost reply
local last = last_id(log)
if last ~= seen then return {'behind', last or ''} end
if cancel then return {'cancelled'} end

local replid = replication_id()
local attempt = next_attempt(counter, last, stored_replid, replid)
local id, number = id_of(attempt, 0), string.format('%.0f', attempt)
local started = started_json(attempt, last, reason, reset, ARGV[7])
redis.call('XADD', log, 'NOMKSTREAM', id, 'e', started, 'p', ARGV[8])
redis.call('HSET', record, 'attempt', number, 'reason', reason, 'replid', replid)
if not read_on then leave_upstream(record, lane) end
redis.call('EXPIRE', record, ttl)
redis.call('EXPIRE', log, ttl)
push(log, last, id, 1, false, frame(id, started))
return {'ok', attempt}
