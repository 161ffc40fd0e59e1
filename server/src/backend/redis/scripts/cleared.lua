-- The end of a clear.
h[FORGOTTEN], h[HALF], h[HALF_KEYS] = h[POSITION], h[POSITION], ZERO
save()
publish(ARGV[3], ARGV[4], '-')
return { 'done', now_text, state, before }
