-- The changes of a RedisInbox: ARGV[1] names one of the commands at the end. Each is atomic.
--
-- KEYS[1] is the inbox's name; all its keys begin with it, and so have one hash tag:
--   :e:KEY        hash: an event. meta, text, name, tenant, subject, state, n (its number), starts,
--                 token (of the claim), r and w (the receiver and the one handler it waits for),
--                 dead (letters), and for each handler h:NAME (succeeded), f:NAME or d:NAME
--                 (failed, for good: "failures:milliseconds:error")
--   :n            the latest number        :all     zset: every event, by number
--   :s:STATE      zset: events by number   :ended   zset: done and ignored events, by their end
--   :q:QUEUE      zset: waiting events of a receiver that wait for one handler, or for any; by the
--                 millisecond when they are due, or by their number (far less) if at once
--   :queues:R     set: handlers that events of a receiver wait for
--   :stale        hash: queues whose events are to wait for any handler, each with the receiver
--   :letters      zset: KEY, a line's end, and the handler; by the time
--   :subjects     hash: whether synthetic, KEY, a line's end, and the state
--   :handlers:R   hash: the events that each handler of a receiver wants
--   :gone:TOKEN   string: there while a claim that reaches no one could still come
--   :until:R      zset: handlers by when they are forgotten     :receivers  set
local P = KEYS[1]
-- No lease and no pause is longer: what seems due later was written before the clock went back.
local HORIZON = 7200000
local CHUNK = 1000  -- events moved, forgotten or looked through at once: some milliseconds
local call = redis.call

local function now()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function event(key) return P .. ':e:' .. key end
local function queue(receiver, handler) return #receiver .. ':' .. receiver .. handler end

-- A server without memory refuses a script by its first write alone, if that may need some. What
-- ends events must go on then: it begins with a write that needs none.
local function go_on_without_memory() call('DEL', P .. ':none') end

local function enqueue(key, receiver, handler, due)
  call('HSET', event(key), 'r', receiver, 'w', handler)
  call('ZADD', P .. ':q:' .. queue(receiver, handler), due, key)
  if handler ~= '' then call('SADD', P .. ':queues:' .. receiver, handler) end
end

local function dequeue(key)
  local place = call('HMGET', event(key), 'r', 'w')
  call('ZREM', P .. ':q:' .. queue(place[1], place[2]), key)
  return place[1], place[2]
end

local function held(key, token)
  local found = call('HMGET', event(key), 'state', 'token')
  return found[1] == 'waiting' and found[2] == token
end

local function drop_letter(key, handler)
  if call('HDEL', event(key), 'd:' .. handler) == 0 then return false end
  call('HINCRBY', event(key), 'dead', -1)
  call('ZREM', P .. ':letters', key .. '\n' .. handler)
  return true
end

local function complete(key, handler)
  if call('EXISTS', event(key)) == 0 then return end
  call('HSET', event(key), 'h:' .. handler, 1)
  call('HDEL', event(key), 'f:' .. handler)
  drop_letter(key, handler)
end

local function to_state(key, state, time)
  local found = call('HMGET', event(key), 'state', 'n')
  call('ZREM', P .. ':s:' .. found[1], key)
  call('ZREM', P .. ':ended', key)
  call('ZADD', P .. ':s:' .. state, found[2], key)
  if state == 'done' or state == 'ignored' then call('ZADD', P .. ':ended', time, key) end
  call('HSET', event(key), 'state', state, 'token', '')
end

local function finish(key, state, time)
  dequeue(key)
  to_state(key, state, time)
end

local function handlers_with(key, prefix)
  local names = {}
  for _, name in ipairs(call('HKEYS', event(key))) do
    if name:sub(1, 2) == prefix then names[#names + 1] = name:sub(3) end
  end
  return names
end

-- Make some events of stale queues wait for any handler; return 1 if there are no more.
local function drain()
  local stale, room = call('HGETALL', P .. ':stale'), CHUNK
  for i = 1, #stale, 2 do
    local from, receiver = stale[i], stale[i + 1]
    local rows = call('ZRANGE', P .. ':q:' .. from, 0, room - 1, 'WITHSCORES')
    for j = 1, #rows, 2 do
      if call('EXISTS', event(rows[j])) == 1 then enqueue(rows[j], receiver, '', rows[j + 1]) end
    end
    room = room - #rows / 2
    if room <= 0 then
      call('ZREMRANGEBYRANK', P .. ':q:' .. from, 0, #rows / 2 - 1)
      return 0
    end
    call('DEL', P .. ':q:' .. from)
    call('HDEL', P .. ':stale', from)
    local length = from:match('^%d+')
    local owner = from:sub(#length + 2, #length + 1 + length)
    call('SREM', P .. ':queues:' .. owner, from:sub(#length + 2 + length))
  end
  return 1
end

local function forget_handlers(receiver, time)
  for _, name in ipairs(call('ZRANGEBYSCORE', P .. ':until:' .. receiver, '-inf', '(' .. time)) do
    call('ZREM', P .. ':until:' .. receiver, name)
    call('HDEL', P .. ':handlers:' .. receiver, name)
    if call('SISMEMBER', P .. ':queues:' .. receiver, name) == 1 then
      call('HSET', P .. ':stale', queue(receiver, name), receiver)
    end
  end
end

local function contains(spec)
  for _, key in ipairs(spec.keys) do
    if call('EXISTS', event(key)) == 1 then return true end
  end
  for _, subject in ipairs(spec.subjects) do
    local latest = call('HGET', P .. ':subjects', subject)
    if latest then
      local flag, state = latest:sub(1, 1), latest:match('\n(.*)$')
      if state == spec.state and (flag == '1' or spec.synthetic) then return true end
    end
  end
  return false
end

-- Return the first due events of some queues, at most so many, as {score, key, queue}.
local function due_events(queues, limit, time)
  local found = {}
  for _, name in ipairs(limit > 0 and queues or {}) do
    for _, range in ipairs({{'-inf', time}, {'(' .. time + HORIZON, '+inf'}}) do
      local rows = call(
        'ZRANGEBYSCORE', name, range[1], range[2], 'WITHSCORES', 'LIMIT', 0, limit)
      for i = 1, #rows, 2 do found[#found + 1] = {tonumber(rows[i + 1]), rows[i], name} end
    end
  end
  table.sort(found, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] < b[2]
  end)
  return found
end

-- Return the queues of events that a receiver with some handlers can claim.
local function queues_of(receiver, handlers)
  local queues = {P .. ':q:' .. queue(receiver, '')}
  for _, name in ipairs(handlers) do queues[#queues + 1] = P .. ':q:' .. queue(receiver, name) end
  return queues
end

local function next_due_in(queues, time)
  local least
  for _, name in ipairs(queues) do
    local first = call('ZRANGE', name, 0, 0, 'WITHSCORES')
    if first[2] then
      local left = math.max(first[2] - time, 0)
      least = math.min(least or left, left > HORIZON and 0 or left)
    end
  end
  return least or false
end

local function end_claim(report, time)
  local key, name = report.key, event(report.key)
  for _, failed in ipairs(report.failed) do
    local handler, failures, retry_in, message = unpack(failed)
    if call('HEXISTS', name, 'h:' .. handler) == 0 then
      call('HSET', name, 'f:' .. handler, failures .. ':' .. time + retry_in .. ':' .. message)
    end
  end
  for _, dead in ipairs(report.dead) do
    local handler, failures, message = unpack(dead)
    if call('HEXISTS', name, 'h:' .. handler) == 0 then
      call('HDEL', name, 'f:' .. handler)
      local is_new = call('HSET', name, 'd:' .. handler, failures .. ':' .. time .. ':' .. message)
      call('HINCRBY', name, 'dead', is_new)
      call('ZADD', P .. ':letters', time, key .. '\n' .. handler)
    end
  end
  if report.due_in >= 0 then
    local receiver = dequeue(key)
    call('HINCRBY', name, 'starts', -1)
    call('HSET', name, 'token', '')
    local due = report.due_in > 0 and time + report.due_in or call('HGET', name, 'n')
    enqueue(key, receiver, report.waits_for, due)
  else
    local is_dead = tonumber(call('HGET', name, 'dead')) > 0
    finish(key, is_dead and 'dead' or report.state, time)
  end
end

local commands = {}

function commands.put(spec, text)
  spec = cjson.decode(spec)
  if contains(spec) then return 0 end
  local key, number = spec.keys[1], call('INCR', P .. ':n')
  call('HSET', event(key), 'meta', spec.meta, 'text', text, 'name', spec.name, 'state', 'waiting',
    'n', number, 'starts', 0, 'token', '', 'dead', 0)
  if spec.tenant ~= cjson.null then call('HSET', event(key), 'tenant', spec.tenant) end
  local subject = spec.subjects[1]
  if subject then
    call('HSET', event(key), 'subject', subject)
    local flag = spec.synthetic and '1' or '0'
    call('HSET', P .. ':subjects', subject, flag .. key .. '\n' .. spec.state)
  end
  call('ZADD', P .. ':all', number, key)
  call('ZADD', P .. ':s:waiting', number, key)
  enqueue(key, spec.receiver, '', number)
  return 1
end

function commands.contains(spec)
  return contains(cjson.decode(spec)) and 1 or 0
end

function commands.announce(receiver, keep_for, handlers, former)
  local time, is_new = now(), false
  call('SADD', P .. ':receivers', receiver)
  for _, handler in ipairs(cjson.decode(handlers)) do
    if call('HSET', P .. ':handlers:' .. receiver, handler[1], handler[2]) == 1 then
      is_new = true
    end
    call('ZADD', P .. ':until:' .. receiver, time + keep_for, handler[1])
  end
  if is_new then
    for _, name in ipairs(call('SMEMBERS', P .. ':queues:' .. receiver)) do
      call('HSET', P .. ':stale', queue(receiver, name), receiver)
    end
  end
  for _, other in ipairs(cjson.decode(former)) do
    call('HSET', P .. ':stale', queue(other, ''), receiver)
    for _, name in ipairs(call('SMEMBERS', P .. ':queues:' .. other)) do
      call('HSET', P .. ':stale', queue(other, name), receiver)
    end
  end
  return drain()
end

commands.drain = drain

function commands.claim(receiver, limit, lease, token, ...)
  go_on_without_memory()
  local time, claims, handlers = now(), {}, {}
  limit = call('EXISTS', P .. ':gone:' .. token) == 0 and tonumber(limit) or 0
  forget_handlers(receiver, time)
  drain()
  local queues = queues_of(receiver, {...})
  for _, found in ipairs(due_events(queues, limit, time)) do
    if #claims == limit then break end
    local _, key, from = unpack(found)
    if call('HGET', event(key), 'state') == 'waiting' then
      call('ZADD', from, time + lease, key)
      call('HSET', event(key), 'token', token)
      local starts = call('HINCRBY', event(key), 'starts', 1)
      claims[#claims + 1] = {starts - 1, call('HGETALL', event(key))}
    else  -- the server has evicted it
      call('ZREM', from, key)
    end
  end
  for _, name in ipairs(call('ZRANGE', P .. ':until:' .. receiver, 0, -1)) do
    handlers[#handlers + 1] = {name, call('HGET', P .. ':handlers:' .. receiver, name)}
  end
  return {time, next_due_in(queues, time), claims, handlers}
end

-- Undo a claim, whose arguments these are, or keep it from being carried out later: calls of
-- two connections can overtake each other.
function commands.give_back(receiver, _, lease, token, ...)
  go_on_without_memory()
  local time = now()
  call('SET', P .. ':gone:' .. token, '', 'PX', math.max(lease, 1))
  for _, name in ipairs(queues_of(receiver, {...})) do
    local first, last = '(' .. time, time + lease
    for _, key in ipairs(call('ZREVRANGEBYSCORE', name, last, first, 'LIMIT', 0, CHUNK)) do
      local waits_for = call('HGET', event(key), 'w')
      local report = {key = key, failed = {}, dead = {}, due_in = 0, waits_for = waits_for}
      if held(key, token) then end_claim(report, time) end
    end
  end
end

function commands.renew(lease, ...)
  go_on_without_memory()
  local claims, time, kept = {...}, now(), {}
  for i = 1, #claims, 2 do
    local key = claims[i]
    if held(key, claims[i + 1]) then
      local place = call('HMGET', event(key), 'r', 'w')
      call('ZADD', P .. ':q:' .. queue(place[1], place[2]), time + lease, key)
      kept[#kept + 1] = key
    end
  end
  return kept
end

function commands.complete(key, handler)
  go_on_without_memory()
  complete(key, handler)
end

function commands.report(reports)
  go_on_without_memory()
  local time = now()
  for _, report in ipairs(cjson.decode(reports)) do
    for _, handler in ipairs(report.done) do complete(report.key, handler) end
    if held(report.key, report.token) then end_claim(report, time) end
  end
end

-- Return where to go on, if at all, and some events after a number as {state, meta, text}.
function commands.list(state, after, limit, name, tenant)
  local source = state == '' and P .. ':all' or P .. ':s:' .. state
  local rows = call('ZRANGEBYSCORE', source, '(' .. after, '+inf', 'WITHSCORES', 'LIMIT', 0, CHUNK)
  local found = {}
  for i = 1, #rows, 2 do
    local row = call('HMGET', event(rows[i]), 'state', 'meta', 'text', 'name', 'tenant')
    local fits = row[1] and (name == '' or name == '=' .. row[4])
      and (tenant == '' or tenant == '=' .. (row[5] or ''))
    if fits then found[#found + 1] = {row[1], row[2], row[3]} end
    after = rows[i + 1]
    if #found == tonumber(limit) then break end
  end
  return {#rows > 0 and after or false, found}
end

function commands.letters(...)
  local found = {}
  for _, letter in ipairs({...}) do
    local key, handler = letter:match('^([^\n]*)\n(.*)$')
    found[#found + 1] = call('HMGET', event(key), 'meta', 'text', 'd:' .. handler)
  end
  return found
end

function commands.replay(keys, handlers)
  local count = 0
  for _, key in ipairs(cjson.decode(keys)) do
    local state = call('HGET', event(key), 'state')
    if state and state ~= 'waiting' then
      local chosen = cjson.decode(handlers)
      for _, name in ipairs(chosen == cjson.null and handlers_with(key, 'd:') or chosen) do
        drop_letter(key, name)
        call('HDEL', event(key), 'h:' .. name)
      end
      for _, name in ipairs(handlers_with(key, 'f:')) do call('HDEL', event(key), 'f:' .. name) end
      local receiver = call('HGET', event(key), 'r')
      to_state(key, 'waiting')
      call('HSET', event(key), 'starts', 0)
      enqueue(key, receiver, '', call('HGET', event(key), 'n'))
      count = count + 1
    end
  end
  return count
end

function commands.discard(keys, handlers)
  go_on_without_memory()
  local count, time = 0, now()
  for _, key in ipairs(cjson.decode(keys)) do
    local state = call('HGET', event(key), 'state')
    if state and state ~= 'done' then
      local chosen, dropped = cjson.decode(handlers), 0
      local is_whole = chosen == cjson.null
      for _, name in ipairs(is_whole and handlers_with(key, 'd:') or chosen) do
        if drop_letter(key, name) then
          call('HSET', event(key), 'h:' .. name, 1)
          dropped = dropped + 1
        end
      end
      local left = tonumber(call('HGET', event(key), 'dead'))
      if is_whole or (dropped > 0 and state == 'dead' and left == 0) then
        finish(key, 'done', time)
      end
      if is_whole or dropped > 0 then count = count + 1 end
    end
  end
  return count
end

function commands.counts()
  local counts = {}
  for _, state in ipairs({'waiting', 'done', 'ignored', 'dead'}) do
    counts[#counts + 1] = {state, call('ZCARD', P .. ':s:' .. state)}
  end
  return counts
end

function commands.published(after, limit)
  local latest = tonumber(call('GET', P .. ':n') or 0)
  if after == '' then return {latest, {}} end
  -- The server has lost its events, and counts anew.
  if tonumber(after) > latest then after = 0 end
  local rows = call('ZRANGEBYSCORE', P .. ':all', '(' .. after, '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
  local found = {}
  for i = 1, #rows, 2 do
    local row = call('HMGET', event(rows[i]), 'meta', 'text')
    if row[1] then found[#found + 1] = row end
    after = rows[i + 1]
  end
  return {tonumber(after), found}
end

-- Forget some events that were over so long ago; return how many, and 1 if there may be more.
function commands.prune(older_than)
  local time = now()
  for _, receiver in ipairs(call('SMEMBERS', P .. ':receivers')) do
    forget_handlers(receiver, time)
  end
  local is_drained = drain()
  local old = call(
    'ZRANGEBYSCORE', P .. ':ended', '-inf', time - older_than, 'LIMIT', 0, CHUNK)
  for _, key in ipairs(old) do
    local row = call('HMGET', event(key), 'subject', 'state')
    local latest = row[1] and call('HGET', P .. ':subjects', row[1])
    if latest and latest:sub(2, #key + 2) == key .. '\n' then
      call('HDEL', P .. ':subjects', row[1])
    end
    if row[2] then call('ZREM', P .. ':s:' .. row[2], key) end
    call('ZREM', P .. ':all', key)
    call('ZREM', P .. ':ended', key)
    call('DEL', event(key))
  end
  return {#old, (#old == CHUNK or is_drained == 0) and 1 or 0}
end

return commands[ARGV[1]](unpack(ARGV, 2))
