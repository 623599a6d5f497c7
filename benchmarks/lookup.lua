-- wrk: asks for a random user of the generated ones, whose ids are first + step * (0 .. users - 1).
local first, step, users = 10000000097, 97, tonumber(os.getenv("PYMK_BENCH_USERS"))

function init(args)
  math.randomseed(17)
end

function request()
  local id = first + step * math.random(0, users - 1)
  return wrk.format("GET", string.format("/v1/users/%d/recommendations", id))
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
