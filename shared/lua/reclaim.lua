-- Says where an attempt's log stands after a restart or failover, and puts the claim back if that was lost too. What the log
-- lacks is then appended again, as it was the first time.
-- KEYS  record, log, in-progress
-- ARGV  token, worker, attempt, the log's last id at the claim, reason, reset (1 | 0), Unix s of the claim, lease ms,
--       started event JSON after `reset` ('' when it is not held any more), private JSON,
--       solitude ('' | alone | waits | '='), the job that runs alone no more because of this one ('' none),
--       the response upstream that it reads ('' none, '=' as it is)
-- → {'at', the log's last id} the log is this owner's | {'over'} it has ended it | {'ended'} another has | {'gone'} |
--   {'superseded'} another has claimed since, or this claim cannot be put back
local record, log, in_progress = unpack(KEYS)
local token, worker, attempt, after, reason = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]

local status, owner, counter, lane, ended_by = unpack(redis.call('HMGET', record, 'status', 'owner', 'attempt', 'lane', 'ended_by'))
if not status then return {'gone'} end
if TERMINAL[status] then return {ended_by == token and 'over' or 'ended'} end
local last = last_id(log) or ''
counter = tonumber(counter) or 0
local function mend_upstream()
  if ARGV[13] == '' then
    redis.call('HDEL', record, 'upstream')
  elseif ARGV[13] ~= '=' then
    redis.call('HSET', record, 'upstream', ARGV[13])
  end
end
if owner == token and (counter >= attempt or last ~= after) then
  mend_upstream()
  return {'at', last}
end
-- Every claim raises the counter and adds to the log: where both are as ours found them, nobody has claimed since.
if ARGV[9] == '' or last ~= after or counter >= attempt then return {'superseded'} end

start(record, log, token, worker, attempt, after, reason, ARGV[6] == '1', ARGV[9], ARGV[10], ARGV[11], ARGV[12])
mend_upstream()
redis.call('HSETNX', record, 'started_at', ARGV[7])
redis.call('SET', in_progress, token, 'PX', ARGV[8])
redis.call('ZADD', 'lastevent:queue:' .. lane, now_ms() + ARGV[8], record:match('[^:]+$'))
redis.call('ZADD', 'lastevent:leased:' .. lane, now_ms() + ARGV[8], record:match('[^:]+$'))
return {'at', id_of(attempt, 0)}
