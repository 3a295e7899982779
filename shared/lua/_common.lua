-- Put before every script by shared/redis_client.py.
--
-- Record fields that scripts read and write (lastevent:job:{id}, hash):
--   status    queued | running | done | failed | cancelled
--   owner     the lease token of the attempt that may append; absent while nobody may
--   worker    the id of the worker that holds it
--   attempt   the highest attempt number given out
--   losses    workers that died while they ran this job
--   lost_alone  those of them that ran no other job
--   solitude  alone | waits: the owner's worker runs nothing beside it | does not run it yet; absent while it runs among others
--   handover  1 between a hand-over and the claim that follows it
--   fallback  the model to go on with, between a fallback to another lane and the claim that follows it
--   before    how the attempt before that fallback ended, JSON
--   cancel    1 once a cancel was asked for
--   upstream  the response that the newest attempt reads at a provider's, where that goes on by itself: `<model> <id>`
--   replid    the primary that took the submit, then the one that granted the last claim
--   lane      where its queue entry is
--   tenant    whose job it is; absent for one that was submitted without a key
--   created_ms, started_at, finished_at
--
-- A push is one PUBLISH on the log's name: a header line, "<cursor before> <cursor after> <n> <.|!>", then n ready-made
-- frames. A reader that stands exactly at the cursor before may take them as they are; "!" marks the terminal event.

local TERMINAL = {done = true, failed = true, cancelled = true}

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function last_id(log)
  local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
  return newest[1] and newest[1][1]
end

local function split_id(id)
  local attempt, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(attempt), tonumber(seq)
end

-- Numbers above 2^31 would be written as 1e+15 by tostring.
local function id_of(attempt, seq)
  return string.format('%.0f-%.0f', attempt, seq)
end

local function frame(id, data)
  return 'id: ' .. id .. '\ndata: ' .. data .. '\n\n'
end

local function push(log, before, after, n, terminal, frames)
  redis.call('PUBLISH', log, before .. ' ' .. after .. ' ' .. n .. (terminal and ' !' or ' .') .. '\n' .. frames)
end

-- Why the log takes nothing from the holder of a token that the record does not name.
local function refusal(record)
  local status = redis.call('HGET', record, 'status')
  if not status then return 'gone' end
  if TERMINAL[status] then return 'ended' end
  return 'superseded'
end

-- Nobody reads the response that the record names any more: a worker of the lane is to cancel it. After an hour without any it
-- has ended by itself.
local function leave_upstream(record, lane)
  local upstream = redis.call('HGET', record, 'upstream')
  if not upstream then return end
  local abandoned = 'lastevent:abandoned:' .. lane
  redis.call('RPUSH', abandoned, upstream)
  redis.call('EXPIRE', abandoned, 3600)
  redis.call('HDEL', record, 'upstream')
end

-- A lane's leased jobs, each with its lease's end.
local function leased_of(queue)
  return 'lastevent:leased:' .. string.match(queue, '^lastevent:queue:(.+)$')
end

-- Counts an ending for the operations view, in the step of 15 s that it falls into. Steps and TTL are those of
-- shared/operations.py.
local function count_ending(terminal, status, now_s)
  local step = 'lastevent:operations:' .. string.format('%.0f', now_s - now_s % 15)
  redis.call('HINCRBY', step, 'ended', 1)
  if status == 'failed' then
    redis.call('HINCRBY', step, 'error:' .. (string.match(terminal, '"code":"([%w_]+)"') or 'internal'), 1)
  end
  redis.call('EXPIRE', step, 1200)
end

-- The final status, with every key of the job cut to the retention and its queue entry gone. The caller wrote the terminal
-- event in the same script.
local function close(record, log, job_id, lane, status, terminal, retention_s)
  local now = now_ms()
  local tenant = redis.call('HGET', record, 'tenant')
  if tenant then redis.call('ZREM', 'lastevent:active:' .. tenant, job_id) end
  redis.call('HSET', record, 'status', status, 'finished_at', string.format('%.3f', now / 1000))
  count_ending(terminal, status, math.floor(now / 1000))
  redis.call('HDEL', record, 'owner', 'handover', 'cancel', 'fallback', 'before', 'upstream')
  redis.call('EXPIRE', record, retention_s)
  redis.call('EXPIRE', log, retention_s)
  redis.call('ZREM', 'lastevent:open:' .. lane, job_id)
  redis.call('ZREM', 'lastevent:queue:' .. lane, job_id)
  redis.call('ZREM', 'lastevent:leased:' .. lane, job_id)
  redis.call('DEL', 'arq:job:' .. job_id, 'arq:in-progress:' .. job_id)
end

-- Names this primary's history: another one after a restart or a failover.
local function replication_id()
  return string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or ''
end

-- The number of a job's next attempt. A claim that a failover lost may have used the next ones, and readers may have seen
-- them: then it jumps.
local function next_attempt(counter, last, stored_replid, replid)
  local attempt = 1 + math.max(tonumber(counter) or 0, (split_id(last)))
  if stored_replid and stored_replid ~= replid then attempt = attempt + 1000 end
  return attempt
end

-- The `started` event of an attempt; `rest` is its JSON after these fields.
local function started_json(attempt, after, reason, reset, rest)
  return '{"type":"started","attempt":' .. string.format('%.0f', attempt) .. ',"after":"' .. after .. '","reason":"' .. reason
    .. '","reset":' .. tostring(reset) .. ',' .. rest
end

-- A write that changes nothing, so that a WAITAOF on the same connection waits for what another one wrote before.
local function touch(key)
  redis.call('PEXPIRE', key, redis.call('PTTL', key))
end

-- Writes an attempt's opening to log and record, and pushes it. `rest` is the JSON of the event after `reset`; `solitude` is
-- '' | alone | waits | '=' as it is; `beside` the job that runs alone no more because of this one ('' none). The replid is the
-- caller's to keep: a claim that is put back was another primary's.
local function start(record, log, token, worker, attempt, last, reason, reset, rest, private, solitude, beside)
  local id, number = id_of(attempt, 0), string.format('%.0f', attempt)
  local started = started_json(attempt, last, reason, reset, rest)
  redis.call('XADD', log, 'NOMKSTREAM', id, 'e', started, 'p', private)
  redis.call('HSET', record, 'status', 'running', 'owner', token, 'worker', worker, 'attempt', number, 'reason', reason)
  redis.call('HDEL', record, 'handover', 'fallback', 'before')
  local was = redis.call('HGET', record, 'solitude')
  if reason == 'takeover' and was ~= 'waits' then  -- a job that did not run yet killed nobody
    redis.call('HINCRBY', record, 'losses', 1)
    if was == 'alone' then redis.call('HINCRBY', record, 'lost_alone', 1) end
  end
  if solitude == '' then
    redis.call('HDEL', record, 'solitude')
  elseif solitude ~= '=' then
    redis.call('HSET', record, 'solitude', solitude)
  end
  -- In this same step: were the worker to die in between, that job would be charged for what this one did.
  if beside ~= '' then redis.call('HDEL', 'lastevent:job:' .. beside, 'solitude') end
  push(log, last, id, 1, false, frame(id, started))
end

-- Ends an open job from outside. A queued one ends at 0-2; a started one gets a new attempt of two entries (protocol 3).
-- `started_rest` is the JSON of a started event after its attempt and after fields.
local function end_from_outside(record, log, job_id, status, terminal, started_rest, retention_s)
  local was, lane, counter, stored_replid = unpack(redis.call('HMGET', record, 'status', 'lane', 'attempt', 'replid'))
  local before = last_id(log) or '0-0'
  local frames, n, attempt, seq = '', 1, 0, 2
  if was == 'running' then
    attempt = next_attempt(counter, before, stored_replid, replication_id())
    local opening = id_of(attempt, 0)
    local started = '{"type":"started","attempt":' .. string.format('%.0f', attempt) .. ',"after":"' .. before .. '",' .. started_rest
    redis.call('XADD', log, opening, 'e', started)
    redis.call('HSET', record, 'attempt', string.format('%.0f', attempt))
    frames, n, seq = frame(opening, started), 2, 1
  end
  local last = id_of(attempt, seq)
  redis.call('XADD', log, last, 'e', terminal)
  push(log, before, last, n, true, frames .. frame(last, terminal))
  leave_upstream(record, lane)
  close(record, log, job_id, lane, status, terminal, retention_s)
  return last
end

-- This primary's replication id, and when it was first seen: after a restart or a failover an owner gets one
-- lease to say that it lives before anybody may take its jobs over.
local function primary_since(primary)
  local replid = replication_id()
  local known, since = unpack(redis.call('HMGET', primary, 'replid', 'since'))
  if known ~= replid then
    since = now_ms()
    redis.call('HSET', primary, 'replid', replid, 'since', string.format('%.0f', since))
  end
  return replid, tonumber(since)
end
