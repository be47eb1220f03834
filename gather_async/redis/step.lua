-- One step of one process: report what ended, renew the lease, ask for slots.
--
-- Only facts are stored: when requests were answered, what each process has in flight and
-- waits for, whose turn it is, and a hold. Limits are arguments. Instants are whole
-- microseconds of the server's clock, or of ARGV[1] in tests; 0 stands for none.
--
-- KEYS: 1 log    list: when requests were answered, oldest first
--       2 state  hash: clock offset head last hold epoch size longest
--                      credit starved nobulk pause evenly
--       3 procs  hash: process -> "seq flying served interactive bulk until lease", or, once its
--                      lease ended with requests in flight, "gone seq served number at"
--
-- The rules are those of gather_async.protocol.rolling_windows (entry, below, free, free_at)
-- and of gather_async.quota.priority_queue (turns): the tests hold both against each other.
local log, state, procs = KEYS[1], KEYS[2], KEYS[3]
local HUGE = 1e18
local PATIENCE, SHARE, LONGEST_PAUSE = 10e6, 0.2, 60e6 -- of priority_queue
local LONGEST_WAIT = 10e6 -- a process that waits comes at least so often: others may return slots

local at_arg = 0
local function take() at_arg = at_arg + 1; return ARGV[at_arg] end
local function number() return tonumber(take()) end
local function text(n) return string.format('%.0f', n) end

local given, me, seq, lease_for = take(), take(), number(), number()
local epoch_seen, head_seen, flying_mine = take(), number(), number()
local want, hold_for = {i = number(), b = number()}, number()
local patience, settle, reserve, interval = number(), number(), number(), number()
local windows, size, longest = {}, 0, 0
for k = 1, number() do
  local w = {limit = number(), bulk = number(), period = number(),
             external = number(), gone_at = number(), probe_at = number()}
  windows[k] = w
  size, longest = math.max(size, w.limit), math.max(longest, w.period)
end

local s = redis.call('HMGET', state, 'clock', 'offset', 'head', 'last', 'hold', 'epoch', 'size',
  'longest', 'credit', 'starved', 'nobulk', 'pause', 'evenly')
local function stored(k) return tonumber(s[k]) or 0 end
local clock, offset, head, last, hold, epoch = stored(1), stored(2), stored(3), stored(4), stored(5), s[6]
-- Processes may differ in their limits while a new version is rolled out.
size, longest = math.max(size, stored(7)), math.max(longest, stored(8))
local turns = {credit = stored(9), starved = stored(10), nobulk = stored(11), pause = stored(12),
               evenly = stored(13)}

-- A clock that was set back goes on from where it was.
local now
if given == '' then
  local t = redis.call('TIME')
  now = t[1] * 1000000 + t[2]
else
  now = tonumber(given)
end
now = now + offset
local function go_on_from(at)
  if now < at then offset, now = offset + at - now, at end
end
go_on_from(clock)

-- All processes. A lease that ended with requests in flight: they count as answered then, until
-- the process comes back, if it only was stopped, and says what became of them.
local rivals, gone, stamps, guessed = {}, {}, {}, nil
local flying, living, served, seq_done, guesses = flying_mine, 1, 0, -1, 0
local all = redis.call('HGETALL', procs)
for k = 1, #all, 2 do
  local q, f, v, i, b, till, lease =
    string.match(all[k + 1], '(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)')
  if not q then
    local gone_q, gone_v, n, at = string.match(all[k + 1], '^gone (%d+) (%d+) (%d+) (%d+)$')
    if all[k] == me then
      served, seq_done, guessed = tonumber(gone_v), tonumber(gone_q), {number = tonumber(n), at = at}
    elseif tonumber(at) + longest <= now then
      gone[#gone + 1] = {id = all[k]}
    else
      guesses = guesses + tonumber(n)
    end
  elseif all[k] == me then
    served, seq_done = tonumber(v), tonumber(q)
  elseif tonumber(lease) < now then
    local process = {id = all[k], record = q .. ' ' .. v .. ' ' .. f, flying = tonumber(f)}
    for _ = 1, process.flying do stamps[#stamps + 1] = {at = tonumber(lease), of = process} end
    guesses = guesses + process.flying
    gone[#gone + 1] = process
  else
    flying, living = flying + tonumber(f), living + 1
    if tonumber(till) >= now and tonumber(i) + tonumber(b) > 0 then
      rivals[#rivals + 1] = {id = all[k], v = tonumber(v), i = tonumber(i), b = tonumber(b)}
    end
  end
end
if seq <= seq_done then return {'late'} end -- a later call of its own overtook this one

-- What ended: the number of the call that first reported it, and its age.
for _ = 1, number() do
  local reported, age = number(), number()
  if reported > seq_done then stamps[#stamps + 1] = {at = now - age} end
end

-- What this process remembers, where the state is not the one that it knew.
local remembered = number()
local function history_of(name) return name and string.match(name, '^[^/]*') end
local is_other = history_of(epoch_seen) ~= history_of(epoch) or head_seen > head
if remembered < 0 and epoch_seen ~= '' and is_other then return {'lost'} end
if not epoch then
  -- Empty, perhaps just restarted: others may be about to report what they have in flight.
  local info = redis.pcall('INFO', 'server')
  local uptime = type(info) == 'string' and tonumber(string.match(info, 'uptime_in_seconds:(%d+)'))
  local is_new = uptime and uptime * 1000000 <= 3 * settle
  epoch = text(now) .. me
  if remembered > 0 or is_new then hold = math.max(hold, now + settle) end
end
if remembered > 0 then
  local known, seen, merged = {}, {}, redis.call('LRANGE', log, 0, -1)
  for k, at in ipairs(merged) do known[at] = (known[at] or 0) + 1; merged[k] = tonumber(at) end
  local before = #merged
  for _ = 1, remembered do
    local at = take()
    go_on_from(tonumber(at))
    seen[at] = (seen[at] or 0) + 1
    if seen[at] > (known[at] or 0) and tonumber(at) + longest > now then
      merged[#merged + 1] = tonumber(at)
    end
  end
  if #merged > before then
    table.sort(merged)
    redis.call('DEL', log)
    for k = math.max(1, #merged - size + 1), #merged do redis.call('RPUSH', log, text(merged[k])) end
    head, last = head + #merged + 1, math.max(last, merged[#merged])
    epoch = text(now) .. me -- all others read it anew, and add what they remember
  end
end

if guessed and redis.call('LREM', log, -guessed.number, guessed.at) > 0 then
  -- The same history in another wording: all others read it anew, and add nothing to it.
  epoch = history_of(epoch) .. '/' .. text(now) .. me
end
table.sort(stamps, function(a, b) return a.at < b.at end)
for _, stamp in ipairs(stamps) do
  last = math.max(stamp.at, last)
  redis.call('RPUSH', log, text(last))
  head = head + 1
  if stamp.of then stamp.of.at = text(last) end
end
for _, process in ipairs(gone) do
  if process.at then
    redis.call('HSET', procs, process.id, 'gone ' .. process.record .. ' ' .. process.at)
  else
    redis.call('HDEL', procs, process.id)
  end
end
-- What is taken back must not leave too few.
local extra = redis.call('LLEN', log) - size - guesses
if extra > 0 then redis.call('LTRIM', log, extra, -1) end
if hold_for > 0 then hold = math.max(hold, now + math.min(hold_for, longest + 60e6)) end

-- How many more could start now, and when the next one could.
for _, w in ipairs(windows) do
  if now >= w.gone_at then w.external = 0 end
end
local function entry(n) return tonumber(redis.call('LINDEX', log, -n) or nil) end
local function below(room, w) -- when fewer than room answers count
  if room <= 0 then return HUGE end
  local at = entry(room)
  return at and at + w.period > now and at + w.period or now
end
local function window_free_at(w, bulk)
  local room = (bulk and w.bulk or w.limit) - flying
  local at = below(room - w.external, w)
  if w.external > 0 and at > now then
    local ours = below(room, w)
    at = math.min(at, math.max(ours, w.gone_at))
    if flying == 0 then at = math.min(at, math.max(ours, w.probe_at)) end
  end
  return at
end
local function free_at(bulk)
  local at = now
  for _, w in ipairs(windows) do at = math.max(at, window_free_at(w, bulk)) end
  return at
end
local function free(most, bulk)
  for _, w in ipairs(windows) do
    local room = (bulk and w.bulk or w.limit) - w.external - flying
    local low, high = 0, math.min(most, room)
    while low < high do
      local f = math.ceil((low + high) / 2)
      if below(room - f + 1, w) <= now then low = f else high = f - 1 end
    end
    -- One request at a time may find out whether the use elsewhere has ended.
    if low == 0 and w.external > 0 and window_free_at(w, bulk) <= now then low = 1 end
    most = math.min(most, low)
  end
  return most
end

-- Slots go to those who were served least; who was away has no claim from before.
local others, waits = {i = 0, b = 0}, {i = 0, b = 0}
local least
for _, r in ipairs(rivals) do
  others.i, others.b = others.i + r.i, others.b + r.b
  least = math.min(least or r.v, r.v)
end
waits.i, waits.b = others.i, others.b
if least then served = math.max(served, least) end

-- Divide slots of one class; return this process' part, the rest is promised to rivals.
local function divide(total, class)
  local wanted, low = want[class], served
  if #rivals == 0 then return total end
  for _, r in ipairs(rivals) do
    if r[class] > 0 then low = math.min(low, r.v) end
  end
  local function part(claim, v, level) return math.max(0, math.min(claim, level - v)) end
  local high = low + total
  while low < high do
    local level = math.ceil((low + high) / 2)
    local sum = part(wanted, served, level)
    for _, r in ipairs(rivals) do sum = sum + part(r[class], r.v, level) end
    if sum <= total then low = level else high = level - 1 end
  end
  local mine = part(wanted, served, low)
  local rest = total - mine
  local function promise(r, n)
    r.v, r[class], others[class], rest = r.v + n, r[class] - n, others[class] - n, rest - n
  end
  for _, r in ipairs(rivals) do promise(r, part(r[class], r.v, low)) end
  -- What can't be divided is this process', which is here, if none was served less.
  if rest > 0 and mine < wanted and served + mine <= low then mine, rest = mine + 1, rest - 1 end
  for _, r in ipairs(rivals) do
    if rest > 0 and r[class] > 0 and r.v <= low then promise(r, 1) end
  end
  return mine
end

-- Whose turn it is.
local plan = turns -- with what is promised to rivals, which isn't stored
if #rivals > 0 then
  plan = {}
  for name, value in pairs(turns) do plan[name] = value end
end
local free_i, free_b = 0, 0
local function is_paused(t, any_b)
  if t.pause == 0 or not any_b then return false end
  if now >= t.pause then t.credit, t.pause = 0, 0; return false end
  return now >= t.evenly
end
local function turn_of(t, any_i, any_b)
  if any_b then
    if t.starved == 0 or (t.nobulk > 0 and now - t.nobulk > PATIENCE) then t.starved = now end
    t.nobulk = 0
    if (not any_i or t.credit >= 1) and now >= t.evenly and free_b > 0 then
      if not any_i then t.starved = 0 end
      return 'b'
    end
  end
  if any_i and not is_paused(t, any_b) and free_i > 0 then return 'i' end
end
local function is_starved(t) return t.starved > 0 and now - t.starved > PATIENCE end
local function started(t, class, n, bulk_waits)
  if class == 'b' then
    t.credit = math.max(0, t.credit - n)
    if t.credit < 1 then t.pause = 0 end
    if not bulk_waits then t.nobulk = now end
    if interval > 0 then
      local late = now - t.evenly
      t.evenly = (late >= 0 and late < interval and t.evenly or now) + interval
    end
  elseif bulk_waits and is_starved(t) then
    t.credit = math.min(t.credit + SHARE, reserve + 1) -- one at a time, as below
    if t.credit >= reserve + 1 and t.pause < now and now >= t.evenly then
      local at = free_at(true)
      if at == HUGE or at <= now + LONGEST_PAUSE then t.pause = now + LONGEST_PAUSE end
    end
  end
end

local got, promised, order = {i = 0, b = 0}, 0, {}
if now >= hold then
  local most = want.i + want.b + others.i + others.b
  if want.i + others.i > 0 then free_i = free(most, false) end
  if want.b + others.b > 0 then free_b = free(most, true) end
  while want.i + want.b > 0 do
    local any_i, any_b = want.i + others.i > 0, want.b + others.b > 0
    local class = turn_of(plan, any_i, any_b)
    if plan ~= turns then turn_of(turns, any_i, any_b) end
    if not class then break end
    local n = want[class] + others[class]
    if class == 'b' then
      n = math.min(n, free_b)
      if any_i then n = math.min(n, math.floor(plan.credit)) end
      if interval > 0 then n = 1 end
    else
      n = math.min(n, free_i)
      if any_b and is_starved(plan) then n = 1 end
    end
    local mine = divide(n, class)
    want[class], got[class] = want[class] - mine, got[class] + mine
    if mine > 0 then order[#order + 1] = class .. text(mine) end
    served, promised = served + mine, promised + n - mine
    flying, free_i, free_b = flying + n, free_i - n, free_b - n
    local bulk_waits = want.b + others.b > 0
    started(plan, class, n, bulk_waits)
    if plan ~= turns and mine > 0 then started(turns, class, mine, bulk_waits) end
  end
end

-- When to come again: with the slot that follows those of who was served less.
local wake = 0
if want.i + want.b > 0 then
  local function ahead_of(bulk)
    local ahead = 0
    for _, r in ipairs(rivals) do
      local claim = bulk and r.i + r.b or r.i
      if r.v < served then ahead = ahead + math.min(claim, served - r.v)
      elseif r.v == served and r.id < me and claim > 0 then ahead = ahead + 1 end
    end
    return ahead
  end
  local function slot_at(bulk)
    local ahead, latest = ahead_of(bulk), now
    for _, w in ipairs(windows) do
      local at = window_free_at(w, bulk)
      local room = (bulk and w.bulk or w.limit) - w.external - flying
      if ahead > 0 and room - ahead >= 1 then
        at = math.max(at, below(room - ahead, w))
      elseif ahead > 0 or at == HUGE then
        -- What is in flight, or yet to start, must be answered, and that must expire.
        at = now + w.period * (1 + math.floor(math.max(0, ahead - math.max(room, 0)) / w.limit))
      end
      latest = math.max(latest, at)
    end
    return latest
  end
  local any_i, any_b = want.i + others.i > 0, want.b + others.b > 0
  wake = HUGE
  if want.i > 0 then wake = is_paused(plan, any_b) and plan.pause or slot_at(false) end
  if want.b > 0 and (want.i == 0 or plan.credit >= 1) then
    wake = math.min(wake, math.max(plan.evenly, slot_at(true)))
  end
  if living > 1 then wake = math.min(wake, now + LONGEST_WAIT) end
  wake = math.max(wake, hold)
  if wake <= now then wake = now + patience end -- there is room, and it is others' turn
end

if lease_for == 0 then
  redis.call('HDEL', procs, me)
else
  local flies = flying_mine + got.i + got.b
  local till = math.max(wake, now) + patience
  -- One with nothing in flight is remembered for as long as it may be one of several.
  local lease = flies > 0 and now + lease_for or math.max(till, now + lease_for + windows[1].period)
  redis.call('HSET', procs, me, string.format('%.0f %.0f %.0f %.0f %.0f %.0f %.0f',
    seq, flies, served, want.i, want.b, till, lease))
end
redis.call('HSET', state, 'clock', text(now), 'offset', text(offset), 'head', text(head),
  'last', text(last), 'hold', text(hold), 'epoch', epoch, 'size', text(size),
  'longest', text(longest), 'credit', string.format('%.17g', turns.credit),
  'starved', text(turns.starved), 'nobulk', text(turns.nobulk), 'pause', text(turns.pause),
  'evenly', text(turns.evenly))
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, math.ceil((longest + lease_for) / 1000) + 60000)
end

local missing = size
if epoch_seen == epoch then missing = math.min(size, head - head_seen) end
local fresh = missing > 0 and redis.call('LRANGE', log, -missing, -1) or {}
return {'ok', text(now), table.concat(order), flying - promised, text(hold), epoch, head, text(wake),
        living, waits.i, waits.b, #rivals, text(turns.evenly), fresh}
