-- A session's agent is about to be told to take nothing more.
leave()
return 1
