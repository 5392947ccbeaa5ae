-- A session is about to be started: the prompts that were held back may be delivered.
release()
count()
return 1
