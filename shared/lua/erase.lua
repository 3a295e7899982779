-- Cancels a job if it is open, so that live readers get its end, then erases everything of it.
-- KEYS  record, log, jobs
-- ARGV  job id, cancelled event JSON, started event JSON after `attempt` and `after`, list ttl ms
-- → 'ended' it was open, and its readers got its end | 'over' it had ended before | 'gone'
local record, log, jobs = KEYS[1], KEYS[2], KEYS[3]
local status, worker, lane, idem = unpack(redis.call('HMGET', record, 'status', 'worker', 'lane', 'idem'))
if not status then return 'gone' end
local open = not TERMINAL[status]
if open then
  end_from_outside(record, log, ARGV[1], 'cancelled', ARGV[2], ARGV[3], 60)
  if worker then
    local signal = 'lastevent:signal:' .. worker
    redis.call('RPUSH', signal, 'cancel ' .. ARGV[1])
    redis.call('PEXPIRE', signal, ARGV[4])
  end
end
redis.call('DEL', record, log)
redis.call('ZREM', jobs, ARGV[1])
if idem then redis.call('DEL', idem) end
return open and 'ended' or 'over'
