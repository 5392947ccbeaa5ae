-- A session's agent is about to be stopped: it gets no more prompts.
leave()
return 1
