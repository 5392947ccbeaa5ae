"use strict";
// Refuses requests that did not come through the ingress. Forward auth adds the editor secret to each request it
// allows, and no other client has it. So a neighbour who reaches this port despite the network policies gets no
// further. Beside the secret, forward auth names the access epoch by which it allowed the request (disconnect.js), and,
// for a request to the address of a port, the port.
//
// The guard runs before every listener of the server, including WebSockets, and before the forwarding to the user's own
// programs (ports.js), which never see the secret: a request for a port goes there and nowhere else. Only the
// editor's path of health is open, for the probes of the kubelet and the manager.
// code-server's other socket, for `code` in a terminal, is a file that belongs to the user.
//
// The guard also takes the manager's orders to end connections, which the agent passes on: an access epoch, a nonce and
// a MAC by each disconnect secret. No request ever shows that secret, so a program in the editor's place learns none by
// waiting for one, and can't confirm an order (app/core/access/revocation.py has the other side).
const { createHash, createHmac, timingSafeEqual } = require("node:crypto");
const fs = require("node:fs");
const { IncomingMessage, ServerResponse } = require("node:http");
const { health } = require("./code_server.json");
const { Ports } = require("./ports");

const HEADER = "x-workspace-secret";
const POLICY = "content-security-policy";
const NONE = "none";
const EPOCH = /^epoch=(\d+)$/;
const PORT = /^port=(\d{1,5})$/;
const MOST = 16; // Secrets checked in a request: one for each SECRET_KEY during a rotation.
const DISCONNECT = /^disconnect=(.+)$/; // Before a disconnect secret, in the file.
const ORDER_PATH = "/.workspace/disconnect";
const ORDER_HEADER = "x-workspace-order";
const ORDER = /^(\d{1,15}) ([0-9a-f]{32})((?: [0-9a-f]{64})+)$/;
const OWN = ["WORKSPACE_SECRET_FILE", "EMBED_ORIGINS", "WORKSPACE_OWN_PORTS", "WORKSPACE_NETWORK"];
const REFUSAL =
  "This editor opens only at its workspace's own address. " +
  "Go back to the page that lists the workspace, and open it there.\n";

// The digests of the secrets (undefined: none is required), the disconnect secrets, the origins that may embed the
// editor, and which ports are shown. All are removed from the environment, since terminals inherit it.
function settingsOf(environment) {
  const file = environment.WORKSPACE_SECRET_FILE;
  const origins = words(environment.EMBED_ORIGINS ?? "");
  const ports = {
    refused: words(environment.WORKSPACE_OWN_PORTS ?? "").map(Number),
    sharedAs: environment.WORKSPACE_NETWORK === "shared" ? (environment.WORKSPACE_UUID ?? "") : undefined,
  };
  for (const name of OWN) delete environment[name];
  if (!file) {
    throw new Error(
      "WORKSPACE_SECRET_FILE is not set: it names the file with the editor secret. " +
        `The service sets it. To run an editor by hand without a secret, set it to "${NONE}".`,
    );
  }
  if (file === NONE) return { known: undefined, ordering: [], origins, ports };
  const secrets = secretsIn(file);
  const ordering = secrets.map((each) => DISCONNECT.exec(each)?.[1]).filter(Boolean);
  return { known: secrets.filter((each) => !DISCONNECT.test(each)).map(digest), ordering, origins, ports };
}

function secretsIn(file) {
  try {
    return words(fs.readFileSync(file, "utf8"));
  } catch (error) {
    throw new Error(`the file named by WORKSPACE_SECRET_FILE can't be read: ${error.code}`);
  }
}

const words = (text) => text.split(/[\s,]+/).filter(Boolean);
const digest = (secret) => createHash("sha256").update(secret).digest();

// Whether one of these texts is a secret, in constant time.
function isKnown(given, known) {
  let found = false;
  for (const each of given.map(digest)) {
    for (const one of known) found = timingSafeEqual(each, one) || found;
  }
  return found;
}

// The secrets in a request, and its access epoch and port if it names them; removes them from it.
function takeSecrets(request) {
  const given = words(request.headers[HEADER] ?? "");
  const named = (pattern) => given.map((each) => pattern.exec(each)?.[1]).find(Boolean);
  const [epoch, port] = [EPOCH, PORT].map(named);
  const secrets = given.filter((each) => !EPOCH.test(each) && !PORT.test(each)).slice(0, MOST);
  // Node derives `headers` and `headersDistinct` from `rawHeaders` when they are first read: so these come first.
  delete request.headers[HEADER];
  delete request.headersDistinct[HEADER];
  const raw = request.rawHeaders;
  for (let at = raw.length - 2; at >= 0; at -= 2) if (raw[at].toLowerCase() === HEADER) raw.splice(at, 2);
  return { secrets, epoch: epoch && Number(epoch), port: port && Number(port) };
}

const mac = (secret, text) => createHmac("sha256", secret).update(text).digest();

// The access epoch of an order and its confirmation; undefined for what no disconnect secret has signed.
function read(order, ordering) {
  const [, epoch, nonce, macs] = ORDER.exec(order ?? "") ?? [];
  if (!epoch) return undefined;
  const given = words(macs).slice(0, MOST).map((each) => Buffer.from(each, "hex"));
  const expected = ordering.map((each) => mac(each, `disconnect ${epoch} ${nonce}`));
  const at = expected.findIndex((each) => given.some((one) => timingSafeEqual(each, one)));
  if (at < 0) return undefined;
  return { epoch: Number(epoch), confirmation: mac(ordering[at], `disconnected ${epoch} ${nonce}`).toString("hex") };
}

// Carries out an order, and confirms it.
function obey(request, answer, ordering, connections) {
  const order = read(request.headers[ORDER_HEADER], ordering);
  if (!order) return refuse(answer);
  connections.end(order.epoch, request.socket);
  answer.writeHead(200, { "Content-Type": "text/plain; charset=utf-8", Connection: "close" });
  answer.end(order.confirmation);
}

function isProbe(event, request) {
  return event === "request" && ["GET", "HEAD"].includes(request.method) && request.url.split("?")[0] === health;
}

function refuse(answer) {
  if (answer instanceof ServerResponse) {
    answer.writeHead(403, { "Content-Type": "text/plain; charset=utf-8", Connection: "close" });
    answer.end(REFUSAL);
    return;
  }
  // The socket of a WebSocket handshake: no other listener handles its errors.
  answer.on("error", () => answer.destroy());
  const head = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n";
  answer.end(`${head}Content-Length: ${Buffer.byteLength(REFUSAL)}\r\n\r\n${REFUSAL}`, () => answer.destroy());
}

// The policy, its frame-ancestors extended by these origins.
function embeddable(policy, origins) {
  const directives = policy.split(";").map((each) => each.trim()).filter(Boolean);
  const old = directives.find((each) => /^frame-ancestors(\s|$)/i.test(each)) ?? "frame-ancestors 'self'";
  const sources = old.split(/\s+/).slice(1).filter((each) => each.toLowerCase() !== "'none'");
  const rest = directives.filter((each) => each !== old);
  return [...rest, ["frame-ancestors", ...new Set([...sources, ...origins])].join(" ")].join("; ");
}

// Changes the policy of a response when its head is written, in whichever of Node's ways it was set.
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

// Passes every request of the server through the guard. Call it before the server listens. `connections.admit` says
// whether to serve an access epoch.
function guard(server, { known, ordering, origins, ports: chosen }, connections) {
  const ports = new Ports(server, chosen);
  // An upload to a port may take long. The limit of a request's head stays.
  server.requestTimeout = 0;
  const emit = server.emit;
  server.emit = function (event, request, answer, head) {
    if (request instanceof IncomingMessage) {
      const { secrets, epoch, port } = takeSecrets(request);
      const isPort = port !== undefined;
      if (event === "request" && request.url === ORDER_PATH && !isPort) {
        obey(request, answer, ordering, connections);
        return true;
      }
      if (known && (isPort || !isProbe(event, request))) {
        if (!isKnown(secrets, known) || !connections.admit(epoch, request.socket)) {
          refuse(answer);
          return true;
        }
      }
      ports.note(request.socket, isPort);
      if (isPort) {
        ports.serve(port, event, request, answer, head);
        return true;
      }
      if (origins.length && answer instanceof ServerResponse) embed(answer, origins);
    }
    return emit.apply(this, arguments);
  };
}

module.exports = { settingsOf, guard };
