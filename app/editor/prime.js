"use strict";
// Part of the build of the workspaces' image: has the editor serve its first page once, so that V8's compiled code is
// in the image. The build fails if this fails.
const { spawn } = require("node:child_process");
const { once } = require("node:events");
const fs = require("node:fs");
const path = require("node:path");
const { setTimeout: pause } = require("node:timers/promises");

const { health, port } = require("./code_server.json");

const ADDRESS = `http://127.0.0.1:${port}`;
const PATIENCE = 60_000; // ms; it takes 1 s.
const cache = path.join(__dirname, ".compiled");

async function answered(deadline) {
  while (Date.now() < deadline) {
    try {
      const answer = await fetch(`${ADDRESS}${health}`, { signal: AbortSignal.timeout(5_000) });
      if (answer.ok) return;
    } catch {
      // Not listening yet.
    }
    await pause(50);
  }
  throw new Error("the editor does not answer");
}

async function main() {
  const env = { ...process.env, WORKSPACE_SECRET_FILE: "none" };
  const editor = spawn(process.execPath, [path.join(__dirname, "workspace.js")], { stdio: "inherit", env });
  const ended = once(editor, "exit");
  try {
    await answered(Date.now() + PATIENCE);
    const page = await fetch(`${ADDRESS}/?folder=/workspace/app`, { signal: AbortSignal.timeout(PATIENCE) });
    const text = await page.text();
    if (!page.ok || !text.includes("workbench")) throw new Error(`the first page has status ${page.status}`);
  } finally {
    editor.kill("SIGTERM");
    const last = setTimeout(() => editor.kill("SIGKILL"), PATIENCE);
    await ended;
    clearTimeout(last);
  }
  const kept = fs.readdirSync(cache, { recursive: true }).length;
  if (kept < 100) throw new Error(`only ${kept} files were kept in ${cache}`);
  console.log(`primed: ${kept} files compiled`);
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
