"""An agent of one's own: it asks the model, and writes the files that the model wants (docs/own-agent.md)."""

import json
import os
import sys
from pathlib import Path
from urllib import error, request

FOLDER = Path(os.environ["WORKSPACE_DIR"]).resolve()
SYSTEM = {"role": "system", "content": "You write the files of the user's project, and say in a sentence what you did."}
SCHEMA = {"type": "object", "properties": {name: {"type": "string"} for name in ("path", "content")}}
TOOL = {"type": "function", "function": {"name": "write_file", "parameters": SCHEMA}}


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
                new = {"id": piece.get("id"), "type": "function", "function": {"name": "write_file", "arguments": ""}}
                calls.setdefault(piece["index"], new)["function"]["arguments"] += piece["function"].get("arguments", "")
    return {"role": "assistant", "content": text} | ({"tool_calls": list(calls.values())} if calls else {})


def write_file(call):
    """Do what the model wants; the message that tells it what became of that."""
    wanted = json.loads(call["function"]["arguments"])
    tell("tool_call", call_id=call["id"], name="write_file", arguments=wanted)
    sys.stdin.readline()  # It may be carried out now.
    place = (FOLDER / wanted["path"]).resolve()
    if ok := place.is_relative_to(FOLDER):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(wanted["content"])
    said = "written" if ok else "refused: it is not in the project"
    tell("tool_result", call_id=call["id"], ok=ok, text=said)
    return {"role": "tool", "tool_call_id": call["id"], "content": said}


for prompt in map(json.loads, sys.stdin):
    try:
        messages = [SYSTEM, *prompt["messages"]]
        while (answer := ask(messages)).get("tool_calls"):
            messages += [answer, *map(write_file, answer["tool_calls"])]
        tell("processed", response={"text": answer["content"]})
    except error.HTTPError as e:
        tell("failed", reason=f"The model was not asked: {e}", code=json.load(e).get("error"))
    except (OSError, ValueError, KeyError) as e:
        tell("failed", reason=f"The agent failed: {e!r}", code="internal")
