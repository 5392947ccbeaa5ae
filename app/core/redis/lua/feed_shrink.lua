-- Drop the oldest entries of the feed until it takes no more than ARGV[1] bytes. KEYS: the feed.
fit(KEYS[1], tonumber(ARGV[1]), FEED_SAMPLES)
return 1
