-- Ends a queued job, or asks a running one's worker to stop (protocol 2).
-- KEYS  record, log
-- ARGV  job id, cancelled event JSON, started event JSON after `attempt` and `after`, retention s, list ttl ms
-- → 'ended' it was open and is cancelled now | 'asked' | 'over' it had ended before | 'gone'
local record, log = KEYS[1], KEYS[2]
local status, worker = unpack(redis.call('HMGET', record, 'status', 'worker'))
if not status then return 'gone' end
if TERMINAL[status] then return 'over' end
if status == 'queued' then
  end_from_outside(record, log, ARGV[1], 'cancelled', ARGV[2], ARGV[3], ARGV[4])
  return 'ended'
end
redis.call('HSET', record, 'cancel', '1')  -- the durable flag behind the push: read by claim and renewal
local signal = 'lastevent:signal:' .. worker
redis.call('RPUSH', signal, 'cancel ' .. ARGV[1])
redis.call('PEXPIRE', signal, ARGV[5])
return 'asked'
