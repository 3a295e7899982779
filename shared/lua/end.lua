-- The owner's terminal event and the job's final status, in one step (protocol 3).
-- KEYS  record, log
-- ARGV  token, attempt, seq, terminal event JSON, private JSON, status, retention s, job id
-- → {'ok'} | {'superseded'} | {'ended'} | {'gone'} | {'behind', the log's last id}
local record, log = KEYS[1], KEYS[2]
local token, attempt, seq, status = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[6]
local owner, lane, ended_by = unpack(redis.call('HMGET', record, 'owner', 'lane', 'ended_by'))
if ended_by == token then return {'ok'} end  -- the same call again, after a lost reply
if owner ~= token then return {refusal(record)} end
local last = last_id(log)
if last ~= attempt .. '-' .. (seq - 1) then return {'behind', last or ''} end

local id = attempt .. '-' .. seq
redis.call('XADD', log, 'NOMKSTREAM', id, 'e', ARGV[4], 'p', ARGV[5])
push(log, last, id, 1, true, frame(id, ARGV[4]))
redis.call('HSET', record, 'ended_by', token)
close(record, log, ARGV[8], lane, status, ARGV[4], ARGV[7])
return {'ok'}
