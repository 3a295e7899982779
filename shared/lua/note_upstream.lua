-- Notes which response upstream the owner's attempt reads: before anything of it is in the log, so that whoever takes the job
-- over reads it on, or cancels it.
-- KEYS  record
-- ARGV  token, `<model> <id at the provider's>`
-- → {'ok'} | {'superseded'} | {'ended'} | {'gone'}
local record = KEYS[1]
if redis.call('HGET', record, 'owner') ~= ARGV[1] then return {refusal(record)} end
redis.call('HSET', record, 'upstream', ARGV[2])
return {'ok'}
