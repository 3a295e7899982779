-- Adds the next entries of many attempts, each to its own log, and pushes those that the log took (protocol P5). Offering them
-- again is harmless. Many in one call, because most of what a call with one token costs is the call.
-- KEYS  for each log: record, log
-- ARGV  for each log: token, attempt, the seq before its first entry's, that entry's, how many arguments its entries are, and
--       these: for each entry the count of field arguments, name, value …, data JSON ('' where it equals the second field argument)
-- → for each log: {'ok'} | {'superseded'} | {'ended'} | {'gone'} | {'behind', the log's last id} the log lost a tail

-- The entries are ARGV[from] to ARGV[to]. `before` and `first` are seqs as text: Lua takes a third of a microsecond to write a
-- number, and most calls bring one token for each of many logs.
local function append(record, log, token, attempt, before, first, from, to)
  if redis.call('HGET', record, 'owner') ~= token then return {refusal(record)} end
  local last = last_id(log)
  if not last then return {'behind', ''} end
  local prefix, seq = attempt .. '-', tonumber(first)
  local written = seq - 1
  if last ~= prefix .. before then
    local last_attempt, last_seq = split_id(last)
    if last_attempt ~= tonumber(attempt) or last_seq < written then return {'behind', last} end
    written = last_seq  -- some were written before: the reply to the first offer was lost
  end

  local frames, after = {}, last
  local id = prefix .. first
  while from <= to do
    local count = tonumber(ARGV[from])
    if seq > written then
      redis.call('XADD', log, 'NOMKSTREAM', id, unpack(ARGV, from + 1, from + count))
      local data = ARGV[from + count + 1]
      frames[#frames + 1] = frame(id, data == '' and ARGV[from + 2] or data)
      after = id
    end
    from = from + count + 2
    seq = seq + 1
    if from <= to then id = prefix .. seq end
  end
  if #frames == 1 then
    push(log, last, after, '1', false, frames[1])
  elseif #frames > 1 then
    push(log, last, after, #frames, false, table.concat(frames))
  end
  return {'ok'}
end

local answers = {}
local i = 1
for k = 1, #KEYS, 2 do
  local from = i + 5
  local after = from + tonumber(ARGV[i + 4])
  answers[#answers + 1] = append(KEYS[k], KEYS[k + 1], ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], from, after - 1)
  i = after
end
return answers
