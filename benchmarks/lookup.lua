-- wrk: asks for generated users, whose ids are first + step * (0 .. users - 1).
-- PYMK_BENCH_USERS: how many there are. PYMK_BENCH_DRAW: uniform, or the exponent of a Zipf law over them.
-- PYMK_BENCH_KEY: API key to send. PYMK_BENCH_PATH, PYMK_BENCH_BODY: what to ask, with ID for the user; a body is posted.
local first, step, users = 10000000097, 97, tonumber(os.getenv("PYMK_BENCH_USERS"))
local law = os.getenv("PYMK_BENCH_DRAW") or "uniform"
local key, body = os.getenv("PYMK_BENCH_KEY"), os.getenv("PYMK_BENCH_BODY")
local path = os.getenv("PYMK_BENCH_PATH") or "/v1/users/ID/recommendations"
local cumulative, scatter = nil, 7919 -- a prime, so that neighbours in rank are not neighbours in the tables

function init(args)
  math.randomseed(os.time())
  if key then wrk.headers["Authorization"] = "Bearer " .. key end
  if body then wrk.headers["Content-Type"] = "application/json" end
  if law ~= "uniform" then
    local exponent, sum = tonumber(law), 0
    cumulative = {}
    for rank = 1, users do
      sum = sum + rank ^ -exponent
      cumulative[rank] = sum
    end
  end
end

local function drawn()
  if not cumulative then return math.random(0, users - 1) end
  local wanted, low, high = math.random() * cumulative[users], 1, users
  while low < high do
    local middle = math.floor((low + high) / 2)
    if cumulative[middle] < wanted then low = middle + 1 else high = middle end
  end
  return low * scatter % users
end

function request()
  local id = string.format("%d", first + step * drawn())
  if body then return wrk.format("POST", path, nil, (body:gsub("ID", id))) end
  return wrk.format("GET", (path:gsub("ID", id)))
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
