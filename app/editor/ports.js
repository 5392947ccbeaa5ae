"use strict";
// Shows the workspace's own programs: a request for a port is forwarded to that port of the loopback (guard.js has
// checked the request before). Forward auth says which port it is for, whatever its headers say.
//
// The program sees itself called at http://localhost:PORT, as when somebody calls it without us: development servers
// refuse other hosts, and frameworks compare a form's Origin with the host they are called at. What it answers about
// that address is translated back.
//
// node:http by itself, and not the package `http-proxy` 1.18.1, which code-server has: that one merges slashes in
// paths, leaves a visitor waiting when a program ends within an answer, and garbles the chunked answer to a refused
// handshake.
const http = require("node:http");
const { pipeline } = require("node:stream");
const { AnyListeners, OwnListeners } = require("./listeners");
const { noTunnel, notHttp, notListening } = require("./not_listening");

const HEAD = 65_536; // Bytes of an answer's head, of which Node takes 16 KiB otherwise.
const UNHURRIED = 2 ** 31 - 1; // ms; a refusal comes at once, and a program with many callers may take a second.

// Of one connection alone, and framing, which Node does again.
const HOPS = new Set(["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"]);
// By these a program would take the visitor's address for its own. ingress-nginx sends X-Scheme.
const FORWARDED = /^(forwarded|x-forwarded-(?!for$).*|x-scheme)$/;
// Sends the head. flushHeaders() would encode it as UTF-8, which changes its bytes above 127.
const NOTHING = Buffer.alloc(0);
const BODILESS = ["GET", "HEAD", "DELETE", "OPTIONS", "TRACE"]; // Without a length Node sends no body for these.
const LOCAL = ["localhost", "127.0.0.1", "[::1]", "0.0.0.0"];
const LOCAL_COOKIE = /;\s*domain=\.?(localhost|127\.0\.0\.1)\s*(?=;|$)/i;
const DEFAULT_PORTS = { http: ":80", https: ":443" };

// What follows the origin in an address, if the origin is of this host ("name" or "name:port"); else undefined. Whether
// it begins with http or https says nothing, as TLS ends at the ingress.
function after(address, host) {
  const [, scheme, authority, rest] = /^(https?):\/\/([^/?#]*)(.*)$/i.exec(address) ?? [];
  if (authority === undefined) return undefined;
  const plain = (text) => {
    const usual = DEFAULT_PORTS[scheme.toLowerCase()];
    return text.toLowerCase().endsWith(usual) ? text.toLowerCase().slice(0, -usual.length) : text.toLowerCase();
  };
  return plain(authority) === plain(host) ? rest : undefined;
}

const localHost = (port) => (port === 80 ? "localhost" : `localhost:${port}`);

const hasBody = ({ headers }) => "transfer-encoding" in headers || Number(headers["content-length"] ?? 0) > 0;

function pairs(raw) {
  return Array.from({ length: raw.length / 2 }, (_, at) => [raw[2 * at], raw[2 * at + 1]]);
}

// The headers for the program.
function sentHeaders(request, port, isUpgrade) {
  const host = localHost(port);
  const sent = ["Host", host];
  for (const [name, text] of pairs(request.rawHeaders)) {
    const key = name.toLowerCase();
    if (HOPS.has(key) || FORWARDED.test(key) || ["host", "expect"].includes(key)) continue;
    const rest = ["origin", "referer"].includes(key) ? after(text, request.headers.host) : undefined;
    sent.push(name, rest === undefined ? text : `http://${host}${rest}`);
  }
  if (isUpgrade) sent.push("Connection", "Upgrade", "Upgrade", request.headers.upgrade);
  else if (request.headers["transfer-encoding"]) sent.push("Transfer-Encoding", "chunked");
  else if (!request.headers["content-length"] && !BODILESS.includes(request.method)) sent.push("Content-Length", "0");
  return sent;
}

// A program's own address as a path at the visitor's; others as they are.
function relative(location, port) {
  const rest = LOCAL.map((name) => after(location, `${name}:${port}`)).find((each) => each !== undefined);
  if (rest === undefined) return location;
  // Two slashes would begin the name of another host; browsers read a backslash as one, and overlook tabs.
  if (/^\/\t*[/\\]/.test(rest)) return `/.${rest}`;
  return rest.startsWith("/") ? rest : `/${rest}`;
}

// The headers for the visitor.
function answeredHeaders(answer, request, port) {
  const { origin, host } = request.headers;
  const isOwn = origin !== undefined && after(origin, host) === "";
  const answered = [];
  for (const [name, text] of pairs(answer.rawHeaders)) {
    const key = name.toLowerCase();
    if (HOPS.has(key)) continue;
    if (key === "location") answered.push(name, relative(text, port));
    else if (key === "set-cookie") answered.push(name, text.replace(LOCAL_COOKIE, ""));
    else if (key === "access-control-allow-origin" && isOwn && after(text, localHost(port)) === "") {
      answered.push(name, origin);
    } else answered.push(name, text);
  }
  return answered;
}

// A response on the socket of a handshake, which the server has given up.
function responseOn(socket, request) {
  const response = new http.ServerResponse(request);
  response.shouldKeepAlive = false;
  response.assignSocket(socket);
  response.on("finish", () => socket.destroySoon());
  return response;
}

// Passes a program's answer on as it comes.
function reply(answer, response, request, port) {
  response.sendDate = false;
  response.writeHead(answer.statusCode, answer.statusMessage, answeredHeaders(answer, request, port));
  response.write(NOTHING);
  // If one ends early, so does the other.
  pipeline(answer, response, () => {});
}

// Makes one stream of two sockets, after the program has agreed to a handshake.
function join(socket, head, other, otherHead, answer, request, port) {
  for (const [one, its, another] of [
    [socket, head, other],
    [other, otherHead, socket],
  ]) {
    one.setTimeout(0).setNoDelay(true).setKeepAlive(true);
    if (its.length) one.unshift(its);
    one.on("error", () => another.destroy());
    one.on("close", () => another.destroySoon());
  }
  const headers = [...answeredHeaders(answer, request, port), "Connection", "Upgrade"];
  if (answer.headers.upgrade) headers.push("Upgrade", answer.headers.upgrade);
  const lines = pairs(headers).map(([name, text]) => `${name}: ${text}\r\n`);
  socket.write(`HTTP/1.1 101 ${answer.statusMessage}\r\n${lines.join("")}\r\n`, "latin1");
  socket.pipe(other).pipe(socket);
}

// Runs `work`; what Node won't write, such as a status of 099, ends the client's connection, and not the editor.
function attempt(client, work) {
  try {
    work();
  } catch {
    client.destroy();
  }
}

// Forwards a request to one of these ways to its port. `client` is the response, or for a handshake the socket.
function forward(request, client, head, port, ways) {
  const isUpgrade = head !== undefined;
  const response = () => (isUpgrade ? responseOn(client, request) : client);
  let answered = false;
  const upstream = http.request({
    agent: false,
    method: request.method,
    path: request.url,
    headers: sentHeaders(request, port, isUpgrade),
    host: "localhost",
    port,
    // Not by /etc/hosts, which may not name ::1.
    lookup: (_, options, done) => process.nextTick(done, null, ways),
    autoSelectFamily: true,
    autoSelectFamilyAttemptTimeout: UNHURRIED,
    maxHeaderSize: HEAD,
  });
  upstream.setNoDelay(true);
  upstream.on("response", (answer) => {
    answered = true;
    attempt(client, () => reply(answer, response(), request, port));
  });
  upstream.on("upgrade", (answer, other, otherHead) => {
    answered = true;
    if (!isUpgrade || client.destroyed) return void [client, other].forEach((each) => each.destroy());
    attempt(client, () => join(client, head, other, otherHead, answer, request, port));
  });
  upstream.on("error", (error) => {
    // What happens after the head, its stream tells; and a client that has gone away is told nothing.
    if (answered || client.destroyed) return;
    answered = true;
    request.unpipe(upstream).resume();
    attempt(client, () => {
      if (error.code?.startsWith("HPE_")) notHttp(response(), port);
      else notListening(request, response(), port, isUpgrade);
    });
  });
  client.on("close", () => {
    if (isUpgrade && answered) return;
    request.unpipe(upstream).resume();
    upstream.destroy();
  });
  if (isUpgrade) return void upstream.end();
  if (hasBody(request)) upstream.write(NOTHING);
  request.pipe(upstream);
}

// The workspace's ports behind a server. `refused` are the service's own ports; `sharedAs` is the workspace's uuid
// where its network is not its own.
class Ports {
  #listeners;
  #refused;
  #shown = new Set(); // The connections whose last request was for a port.

  constructor(server, { refused, sharedAs }) {
    this.#refused = new Set(refused);
    this.#listeners = sharedAs === undefined ? new AnyListeners() : new OwnListeners(sharedAs);
    // code-server takes every connection of its server for an open page of the editor. A page of a port that is left
    // open is none: it keeps no workspace awake.
    const count = server.getConnections;
    server.getConnections = (done) => {
      return count.call(server, (error, all) => done(error, error ? all : all - this.#shown.size));
    };
  }

  // Notes what a connection is used for.
  note(socket, isPort) {
    if (!isPort) return void this.#shown.delete(socket);
    if (this.#shown.has(socket)) return;
    this.#shown.add(socket);
    socket.once("close", () => this.#shown.delete(socket));
  }

  // Answers an event of the server for a port: a request with its response, or a handshake with its socket and `head`.
  serve(port, event, request, client, head) {
    const isRequest = client instanceof http.ServerResponse;
    client.on("error", () => client.destroy());
    attempt(client, () => {
      if (event === "connect") return noTunnel(responseOn(client, request));
      if (event === "checkContinue") client.writeContinue();
      const ways = this.#refused.has(port) ? [] : this.#listeners.at(port);
      if (ways.length) return forward(request, client, isRequest ? undefined : head, port, ways);
      notListening(request, isRequest ? client : responseOn(client, request), port, !isRequest);
    });
  }
}

module.exports = { Ports };
