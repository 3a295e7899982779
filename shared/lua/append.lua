-- Adds the next entries of many attempts, each to its own log, and pushes those that the log took (protocol P5). Offering them
-- again is harmless. Many in one call, because most of what a call with one token costs is the call.
-- KEYS  for each log: record, log
-- ARGV  for each log: token, attempt, seq of its first entry, how many arguments its entries are, and these: for each entry the
--       count of field arguments, name, value …, data JSON ('' where it equals the second field argument)
-- → for each log: {'ok'} | {'superseded'} | {'ended'} | {'gone'} | {'behind', the log's last id} the log lost a tail

-- The entries are ARGV[from] to ARGV[to].
local function append(record, log, token, attempt, seq, from, to)
  if redis.call('HGET', record, 'owner') ~= token then return {refusal(record)} end
  local last = last_id(log)
  if not last then return {'behind', ''} end
  local prefix, written = attempt .. '-', seq - 1
  if last ~= prefix .. written then
    local last_attempt, last_seq = split_id(last)
    if last_attempt ~= tonumber(attempt) or last_seq < written then return {'behind', last} end
    written = last_seq  -- some were written before: the reply to the first offer was lost
  end

  local frames = {}
  while from <= to do
    local count = tonumber(ARGV[from])
    if seq > written then
      local id = prefix .. seq
      redis.call('XADD', log, 'NOMKSTREAM', id, unpack(ARGV, from + 1, from + count))
      local data = ARGV[from + count + 1]
      frames[#frames + 1] = frame(id, data == '' and ARGV[from + 2] or data)
    end
    from = from + count + 2
    seq = seq + 1
  end
  if #frames > 0 then push(log, last, prefix .. (seq - 1), #frames, false, table.concat(frames)) end
  return {'ok'}
end

local answers = {}
local i = 1
for k = 1, #KEYS, 2 do
  local from = i + 4
  local after = from + tonumber(ARGV[i + 3])
  answers[#answers + 1] = append(KEYS[k], KEYS[k + 1], ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), from, after - 1)
  i = after
end
return answers
