save()
publish(ARGV[3], ARGV[4], '-')
return { 'done', now_text, state, before }
