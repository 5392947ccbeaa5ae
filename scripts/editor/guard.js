"use strict";
// Lets nobody into the editor but whoever the ingress sends: forward-auth tells it the session's secret for each
// visitor it lets through, and no other way here has it. So a neighbour who finds this port, where the network's
// policies don't keep him from it, gets no further.
//
// It stands before all that listens to the server, whatever code-server adds to it: sockets and the forwarding to the
// user's own programs too, which never see the secret. /healthz alone is open, for the probes of a kubelet and the
// manager. code-server's other socket, for `code` in a terminal, is a file of the user's own.
const { createHash, timingSafeEqual } = require("node:crypto");
const fs = require("node:fs");
const { IncomingMessage, ServerResponse } = require("node:http");

const HEADER = "x-workspace-secret";
const POLICY = "content-security-policy";
const FORWARDED = /^\/(abs)?proxy\//i; // To programs of the user, which say themselves what their pages may.
const NONE = "none";
const MOST = 16; // Secrets that are looked at of a request: one for each SECRET_KEY while one is rotated.
const REFUSAL =
  "This editor is opened by its workspace's own address alone. " +
  "Go back to where you found the workspace, and open it there.\n";

// What the environment says: the digests of the secrets, undefined where somebody wants none asked for, and the origins
// that may embed the editor. Both are taken out of it, since terminals inherit it.
function settingsOf(environment) {
  const file = environment.WORKSPACE_SECRET_FILE;
  const origins = (environment.EMBED_ORIGINS ?? "").split(" ").filter(Boolean);
  delete environment.WORKSPACE_SECRET_FILE;
  delete environment.EMBED_ORIGINS;
  if (!file) {
    throw new Error(
      "WORKSPACE_SECRET_FILE is not set: it names the file of what visitors must show. " +
        `The service sets it. To try an editor by hand that lets everybody in, set it to "${NONE}".`,
    );
  }
  return { known: file === NONE ? undefined : secretsIn(file).map(digest), origins };
}

function secretsIn(file) {
  try {
    return words(fs.readFileSync(file, "utf8"));
  } catch (error) {
    throw new Error(`the file that WORKSPACE_SECRET_FILE names can't be read: ${error.code}`);
  }
}

const words = (text) => text.split(/[\s,]+/).filter(Boolean);
const digest = (secret) => createHash("sha256").update(secret).digest();

// Whether one of these texts is a secret; it takes as long whichever it is.
function opens(shown, known) {
  let found = false;
  for (const each of shown.map(digest)) {
    for (const one of known) found = timingSafeEqual(each, one) || found;
  }
  return found;
}

// What a request shows, which is taken out of it.
function taken(request) {
  const shown = words(request.headers[HEADER] ?? "").slice(0, MOST);
  // Node makes the first two of the third when they are first read, by a length of its own: so they come first.
  delete request.headers[HEADER];
  delete request.headersDistinct[HEADER];
  const raw = request.rawHeaders;
  for (let at = raw.length - 2; at >= 0; at -= 2) if (raw[at].toLowerCase() === HEADER) raw.splice(at, 2);
  return shown;
}

function isProbe(event, request) {
  return event === "request" && ["GET", "HEAD"].includes(request.method) && request.url.split("?")[0] === "/healthz";
}

function refuse(answer) {
  if (answer instanceof ServerResponse) {
    answer.writeHead(403, { "Content-Type": "text/plain; charset=utf-8", Connection: "close" });
    answer.end(REFUSAL);
    return;
  }
  // The socket of a handshake: nobody else looks after it any more.
  answer.on("error", () => answer.destroy());
  const head = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n";
  answer.end(`${head}Content-Length: ${Buffer.byteLength(REFUSAL)}\r\n\r\n${REFUSAL}`, () => answer.destroy());
}

// The policy with these origins among the pages that may hold its page in a frame.
function embeddable(policy, origins) {
  const directives = policy.split(";").map((each) => each.trim()).filter(Boolean);
  const old = directives.find((each) => /^frame-ancestors(\s|$)/i.test(each)) ?? "frame-ancestors 'self'";
  const sources = old.split(/\s+/).slice(1).filter((each) => each.toLowerCase() !== "'none'");
  const rest = directives.filter((each) => each !== old);
  return [...rest, ["frame-ancestors", ...new Set([...sources, ...origins])].join(" ")].join("; ");
}

// Changes the policy of an answer when its head is written, by whichever of Node's ways it was given.
function embed(response, origins) {
  const write = response.writeHead;
  response.writeHead = function (status, ...rest) {
    const given = rest.find((each) => each && typeof each === "object" && !Array.isArray(each));
    const name = given && Object.keys(given).find((each) => each.toLowerCase() === POLICY);
    const there = this.getHeader(POLICY);
    if (name) rest[rest.indexOf(given)] = { ...given, [name]: embeddable(String(given[name]), origins) };
    else if (there) this.setHeader(POLICY, embeddable(String(there), origins));
    return write.call(this, status, ...rest);
  };
}

// Has every request that reaches the server pass here first. Call it before the server listens.
function guard(server, { known, origins }) {
  const emit = server.emit;
  server.emit = function (event, request, answer) {
    if (request instanceof IncomingMessage) {
      const shown = taken(request);
      if (known && !isProbe(event, request) && !opens(shown, known)) {
        refuse(answer);
        return true;
      }
      if (origins.length && answer instanceof ServerResponse && !FORWARDED.test(request.url)) embed(answer, origins);
    }
    return emit.apply(this, arguments);
  };
}

module.exports = { settingsOf, guard };
