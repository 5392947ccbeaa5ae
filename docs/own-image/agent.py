"""An agent of one's own: it asks the model, and runs the commands that the model wants (docs/own-agent.md)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib import error, request

SYSTEM = {"role": "system", "content": "You work on a project by shell commands, and say in a sentence what you did."}
SCHEMA = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
TOOL = {"type": "function", "function": {"name": "run_command", "parameters": SCHEMA}}


def tell(kind, **more):
    print(json.dumps({"type": kind, "id": prompt["id"], **more}), flush=True)


def ask(messages):
    """The model's next message; its text is told as it comes."""
    token = Path(os.environ["AGENT_TOKEN_FILE"]).read_text().splitlines()[0]
    asked = {"model": os.environ["LLM_MODEL"], "messages": messages, "tools": [TOOL], "stream": True}
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    url, text, calls = f"{os.environ['LLM_BASE_URL']}/chat/completions", "", {}
    with request.urlopen(request.Request(url, json.dumps(asked).encode(), headers), timeout=600) as lines:
        for chunk in (json.loads(line[6:]) for line in lines if line.startswith(b"data: {")):
            delta = chunk["choices"][0]["delta"] if chunk.get("choices") else {}
            if delta.get("content"):
                text += delta["content"]
                tell("token", text=delta["content"])
            for piece in delta.get("tool_calls") or []:
                new = {"id": piece.get("id"), "type": "function", "function": {**piece["function"], "arguments": ""}}
                calls.setdefault(piece["index"], new)["function"]["arguments"] += piece["function"].get("arguments", "")
    return {"role": "assistant", "content": text} | ({"tool_calls": list(calls.values())} if calls else {})


def carry_out(call):
    """Run the command; the message that tells the model what came of it."""
    name, wanted = call["function"]["name"], json.loads(call["function"]["arguments"])
    tell("tool_call", call_id=call["id"], name=name, arguments=wanted)
    sys.stdin.readline()  # It may be carried out now.
    ok, said = False, "There is only run_command, with a command."
    if name == "run_command" and "command" in wanted:
        command = ["sh", "-c", '$AGENT_RUN "$0"', wanted["command"]]
        done = subprocess.run(command, capture_output=True, text=True)
        ok, said = done.returncode == 0, done.stdout.strip()
    tell("tool_result", call_id=call["id"], ok=ok, text=said)
    return {"role": "tool", "tool_call_id": call["id"], "content": said}


for prompt in map(json.loads, sys.stdin):
    try:
        messages = [SYSTEM, *prompt["messages"]]
        while (answer := ask(messages)).get("tool_calls"):
            messages += [answer, *map(carry_out, answer["tool_calls"])]
        tell("processed", response={"text": answer["content"]})
    except error.HTTPError as e:
        tell("failed", reason=f"The model was not asked: {e}", code=json.load(e).get("error"))
    except (OSError, ValueError, TypeError) as e:
        tell("failed", reason=f"The agent failed: {e!r}", code="internal")
