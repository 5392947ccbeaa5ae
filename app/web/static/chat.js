"use strict";
// The conversation as it happens: what the page's stream tells is added to the turns as text, never as markup. A turn
// that has ended is fetched from the server, which shows it formatted.
(() => {
  const LABELS = { queued: "Queued", delivered: "Working" };
  const WAITS = "Waits until the session wakes";
  const MOST_EVENTS = 2000;
  const MOST_TURNS = 20;
  const kept = new Map();
  const expected = new Set();
  const followed = new WeakSet();

  const session = () => document.querySelector("[data-session]").dataset.session;
  const turnOf = (id) => document.getElementById("turn-" + id);

  // The ids of events are milliseconds and a number.
  const isAfter = (id, other) => {
    const [a, b] = [id, other].map((each) => each.split("-").map(Number));
    return a[0] > b[0] || (a[0] === b[0] && a[1] > b[1]);
  };

  const atEnd = () => window.innerHeight + window.scrollY > document.documentElement.scrollHeight - 160;
  const toEnd = () => window.scrollTo(0, document.documentElement.scrollHeight);

  const add = {
    token(turn, data) {
      const work = turn.querySelector(".work");
      let said = work.lastElementChild;
      if (!said || !said.classList.contains("live")) {
        said = document.createElement("div");
        said.className = "said live";
        work.append(said);
      }
      if (data.again) said.textContent = "";
      said.append(document.createTextNode(data.text));
    },
    tool_call(turn, data) {
      if (rowOf(turn, data.call_id)) return;
      const row = document.getElementById("tool-row").content.firstElementChild.cloneNode(true);
      row.dataset.call = data.call_id;
      row.querySelector(".tool-name").textContent = data.name;
      const values = Object.values(data.arguments || {}).filter((each) => typeof each === "string");
      row.querySelector(".tool-brief").textContent = (values[0] || "").split("\n")[0].slice(0, 120);
      row.querySelector(".tool-arguments").textContent =
        typeof data.arguments === "string" ? data.arguments : JSON.stringify(data.arguments, null, 2);
      turn.querySelector(".work").append(row);
    },
    tool_result(turn, data) {
      const row = rowOf(turn, data.call_id);
      if (!row) return;
      row.querySelector(".tool-result").textContent = data.text;
      const state = row.querySelector(".tool-state");
      state.textContent = data.ok ? "done" : "failed";
      state.classList.toggle("bad", !data.ok);
    },
    message(turn, data) {
      if (isOver(data.state)) {
        fetchTurn(data.message_id, turn, "outerHTML");
        return;
      }
      turn.dataset.state = data.state;
      label(turn);
    },
  };

  const label = (turn) => {
    const status = document.getElementById("thread").dataset.status;
    const waits = status === "sleeping" || status === "failed";
    turn.querySelector(".turn-state").textContent = waits ? WAITS : LABELS[turn.dataset.state];
  };

  const rowOf = (turn, call) => [...turn.querySelectorAll(".tool")].find((each) => each.dataset.call === call);

  const fetchTurn = (id, target, swap) =>
    htmx.ajax("GET", `/sessions/${session()}/chat/turns/${encodeURIComponent(id)}`, { target, swap });

  const isOver = (state) => state === "processed" || state === "failed";

  const apply = (turn, event) => {
    if (isOver(turn.dataset.state) || !isAfter(event.id, turn.dataset.upto)) return;
    turn.dataset.upto = event.id;
    const follow = atEnd();
    add[event.type](turn, event.data);
    if (follow) toEnd();
  };

  const heard = (message) => {
    const event = { id: message.lastEventId, type: message.type, data: JSON.parse(message.data) };
    const id = event.data.message_id;
    keep(id, event);
    const turn = turnOf(id);
    const thread = document.getElementById("thread");
    if (turn) apply(turn, event);
    else if (thread && event.type === "message" && !expected.has(id)) fetchNew(id);
  };
  const fetchNew = (id) => {
    expected.add(id);
    fetchTurn(id, document.getElementById("thread"), "beforeend");
    if (id === sending.id) sent();
  };

  // A turn that is fetched while it goes on may lack what came meanwhile.
  const keep = (id, event) => {
    if (!kept.has(id)) kept.set(id, []);
    if (kept.get(id).push(event) > MOST_EVENTS) kept.get(id).shift();
    if (kept.size > MOST_TURNS) kept.delete(kept.keys().next().value);
  };

  const changed = (message) => {
    const thread = document.getElementById("thread");
    if (!thread) return;
    thread.dataset.status = JSON.parse(message.data).status;
    thread.querySelectorAll("[data-state=queued], [data-state=delivered]").forEach(label);
  };

  document.addEventListener("htmx:sseOpen", (event) => {
    const source = event.detail.source;
    if (followed.has(source)) return;
    followed.add(source);
    for (const type of Object.keys(add)) source.addEventListener(type, heard);
    source.addEventListener("state", changed);
  });

  // New turns get what came before they did; a draft comes back.
  const begin = (root) => {
    for (const turn of root.querySelectorAll("[data-upto]")) {
      for (const event of kept.get(turn.dataset.turn) || []) apply(turn, event);
    }
    const field = root.querySelector("#message");
    if (field) {
      field.value = field.value || sessionStorage.getItem("draft " + session()) || "";
      toEnd();
    }
  };
  document.addEventListener("htmx:load", (event) => begin(event.detail.elt.parentElement || document.body));

  document.addEventListener("input", (event) => {
    if (event.target.id === "message") sessionStorage.setItem("draft " + session(), event.target.value);
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.id === "message" && event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      event.target.form.requestSubmit();
    }
  });

  // A prompt whose answer was lost may have come through. It is sent again under its id, so that the agent gets it once.
  const NOTHING = { id: "", message: "" };
  let sending = NOTHING;
  const sent = () => {
    const field = document.getElementById("message");
    if (field.value === sending.message) {
      field.value = "";
      sessionStorage.removeItem("draft " + session());
    }
    sending = NOTHING;
    toEnd();
  };
  document.addEventListener("htmx:configRequest", (event) => {
    if (event.detail.elt?.id !== "composer") return;
    const message = event.detail.parameters.get("message");
    if (sending.message !== message) sending = { id: crypto.randomUUID(), message };
    expected.add(sending.id);
    event.detail.parameters.set("id", sending.id);
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    const { elt, xhr } = event.detail;
    if (elt?.id !== "composer") return;
    if (xhr.status >= 200 && xhr.status < 300) return sent();
    expected.delete(sending.id);
    if (kept.has(sending.id)) fetchNew(sending.id);
  });
})();
