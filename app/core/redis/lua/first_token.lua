-- The first token of a prompt's answer has come. Counts how long it took, once for each prompt.
if redis.call('HEXISTS', prompt, 'state') == 0 or redis.call('HEXISTS', prompt, 'begun_at') == 1 then return 0 end
redis.call('HSET', prompt, 'begun_at', given.now)
timed(KEYS[14], 'first_token')
return 1
