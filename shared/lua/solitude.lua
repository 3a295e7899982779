-- Says anew how the owner's worker has this job: its wait is over, or another has come to run beside it.
-- KEYS  record
-- ARGV  token, solitude ('' | alone)
-- → {'ok'} | {'superseded'} | {'ended'} | {'gone'}
local record = KEYS[1]
if redis.call('HGET', record, 'owner') ~= ARGV[1] then return {refusal(record)} end
if ARGV[2] == '' then redis.call('HDEL', record, 'solitude') else redis.call('HSET', record, 'solitude', ARGV[2]) end
return {'ok'}
