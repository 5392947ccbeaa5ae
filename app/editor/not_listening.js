"use strict";
// What is answered for a port where no program answers: a page for a person, which goes on by itself once one does, and
// a problem document for a program (RFC 9457, as app/http/problems.py makes them).
const { STATUS_CODES } = require("node:http");

// The waking page knows by it that the program isn't there (STATUS_HEADER of app/api/waking.py).
const STATUS = { "Workspace-Status": "unknown", "Retry-After": "1" };
const POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";

// Colours as in app/look/tokens.css, shapes as in app/api/pages/page.css.
const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{title}</title>
<style>
:root {
  color-scheme: light dark;
  --bg: #fbfbfc; --surface: #ffffff; --line: #e4e4e9; --text: #1b1b21; --muted: #61616e;
}
@media (prefers-color-scheme: dark) {
  :root { --bg: #0f0f13; --surface: #17171d; --line: #2a2a33; --text: #ececf1; --muted: #a0a0ad; }
}
*, ::before { box-sizing: border-box; }
html { background: var(--bg); color: var(--text); font: 16px/1.5 Inter, system-ui, "Segoe UI", sans-serif; }
body { margin: 0; padding: 12vh 1.25rem 3rem; }
main { max-width: 34rem; margin: 0 auto; padding: 1.75rem; }
main { background: var(--surface); border: 1px solid var(--line); border-radius: 8px; }
h1 { font-size: 1.375rem; line-height: 1.3; margin: 0 0 .5rem; }
p { margin: 0; color: var(--muted); }
</style>
<noscript><meta http-equiv="refresh" content="2"></noscript>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{text}</p>
</main>
<script>
"use strict";
(async () => {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, document.hidden ? 5000 : 1000));
    try {
      const asked = { headers: { Accept: "application/json" }, cache: "no-store", redirect: "manual" };
      const answer = await fetch(location.pathname + location.search, asked);
      answer.body?.cancel();
      if (!answer.headers.has("Workspace-Status")) break;
    } catch {
      // The network or the service is down.
    }
  }
  location.reload();
})();
</script>
</body>
</html>
`;

function send(response, status, headers, text) {
  const length = Buffer.byteLength(text);
  response.writeHead(status, { "Cache-Control": "no-store", "Content-Length": length, ...headers });
  response.end(text);
}

function sendProblem(response, status, error, detail, headers = {}) {
  const problem = { type: "about:blank", title: STATUS_CODES[status], status, detail, error };
  send(response, status, { "Content-Type": "application/problem+json", ...headers }, JSON.stringify(problem));
}

// Nothing listens on this port. A handshake is answered without a body.
function notListening(request, response, port, isUpgrade) {
  const title = `Port ${port} does not answer`;
  if (isUpgrade) {
    send(response, 503, STATUS, "");
  } else if ((request.headers.accept ?? "").includes("text/html")) {
    const text = "Nothing listens on it yet. This page goes on by itself once something does.";
    const page = PAGE.replaceAll("{title}", title).replace("{text}", text);
    const headers = { "Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": POLICY, ...STATUS };
    send(response, 503, headers, page);
  } else {
    sendProblem(response, 503, "port_not_listening", `${title}: nothing listens on it.`, STATUS);
  }
}

// What listens on this port answers with something else than HTTP.
function notHttp(response, port) {
  sendProblem(response, 502, "port_not_http", `What listens on port ${port} does not speak HTTP.`);
}

// A port is no proxy.
function noTunnel(response) {
  sendProblem(response, 405, "method_not_allowed", "CONNECT leads nowhere here.");
}

module.exports = { noTunnel, notHttp, notListening };
