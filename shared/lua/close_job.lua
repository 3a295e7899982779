-- Ends a job that nobody owns any more: the claimer's refusals, damaged queue entries, the reaper.
-- KEYS  record, log, in-progress
-- ARGV  job id, token or '' ('' ends it whoever leases it), status, terminal event JSON, started event JSON after `attempt`
--       and `after`, retention s, the log's last id as read ('' for any)
-- → {'ok', last id} | {'ended'} | {'gone'} | {'lost'} the lease is another's | {'moved'} read the log again
local record, log, in_progress = KEYS[1], KEYS[2], KEYS[3]
local status = redis.call('HGET', record, 'status')
if not status then return {'gone'} end
if TERMINAL[status] then return {'ended'} end
if ARGV[2] ~= '' and redis.call('GET', in_progress) ~= ARGV[2] then return {'lost'} end
if ARGV[7] ~= '' and last_id(log) ~= ARGV[7] then return {'moved'} end
return {'ok', end_from_outside(record, log, ARGV[1], ARGV[3], ARGV[4], ARGV[5], ARGV[6])}
